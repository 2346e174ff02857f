from __future__ import annotations

import threading
import time

import pytest

from deblurkit.pool import Behind, ordered


def test_results_come_in_order_and_few_wait() -> None:
    begun: list[int] = []

    def double(number: int) -> int:
        begun.append(number)
        time.sleep(0.02 if number == 0 else 0)
        return 2 * number

    results = ordered(double, range(100), 2)
    assert next(results) == 0
    assert len(begun) <= 5  # nothing runs ahead of who takes the results
    assert list(results) == [2 * number for number in range(1, 100)]
    assert sorted(begun) == list(range(100))


def test_no_thread_is_left_when_nobody_takes_the_rest() -> None:
    before = threading.active_count()
    results = ordered(str, range(100), 3)
    assert next(results) == "0"
    results.close()
    assert threading.active_count() == before


def test_calls_are_done_behind_and_all_of_them() -> None:
    before, done = threading.active_count(), []
    behind = Behind(3)
    for number in range(50):
        behind.call(done.append, number)
    behind.finish()
    assert sorted(done) == list(range(50))
    behind.close()
    assert threading.active_count() == before


def test_few_calls_wait() -> None:
    free = threading.Event()
    behind, called = Behind(2), []

    def caller() -> None:
        for number in range(20):
            behind.call(free.wait)
            called.append(number)

    thread = threading.Thread(target=caller)
    thread.start()
    time.sleep(0.1)
    assert len(called) == 4
    free.set()
    thread.join()
    behind.finish()
    behind.close()
    assert len(called) == 20


def test_an_error_is_raised_and_what_waits_is_dropped() -> None:
    done: list[int] = []

    def work(number: int) -> None:
        if number == 3:
            raise OSError("the disk is full")
        time.sleep(0.01)
        done.append(number)

    behind = Behind(1)

    def fill() -> None:
        for number in range(100):
            behind.call(work, number)

    with pytest.raises(OSError, match="the disk is full"):
        fill()
    behind.close()
    assert len(done) < 8

    behind = Behind(1)
    behind.call(work, 3)
    with pytest.raises(OSError, match="the disk is full"):
        behind.finish()
    behind.close()
