"""Writing one LMDB: under a `.partial` name until it is whole, growing as needed, continued after an interruption."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import lmdb

from deblurkit.console import progress, say
from deblurkit.data.lmdb_store import MANIFEST, META_INFO, SCHEMA, Manifest, checksum, close
from deblurkit.errors import DataError
from deblurkit.files import sync, write_json, write_text

JOURNAL = "journal.jsonl"
#: A transaction is committed, and thus kept for a later run, after this many bytes.
BATCH_BYTES = 64 << 20


@dataclass(frozen=True)
class FrameRecord:
    """An entry of the LMDB and the file that it was made of.

    `checksum` is that of the stored value, `pixels` that of the pixels (of a copied PNG ""). `channels` are those of
    the stored PNG.
    """

    key: str
    checksum: str
    pixels: str
    height: int
    width: int
    channels: int
    dtype: str
    source_bytes: int
    source_mtime_ns: int

    def same_source(self, path: Path) -> bool:
        """True when the file has not changed since."""
        stat = path.stat()
        return (stat.st_size, stat.st_mtime_ns) == (self.source_bytes, self.source_mtime_ns)


class LmdbWriter:
    """An LMDB that is being made; a context manager.

    Entries go into `TARGET.partial`; each committed batch is noted in a journal there, so that an interrupted run can
    be continued. `finish` renames it to `target`.

    Args:
        target: where it is to lie. purpose: what it is made for (codec, role, ...); a partial one that was begun for
            another purpose is thrown away. sources: the file for every key that it is to have.

    Attributes:
        kept: records of what an interrupted run left behind: entries whose bytes are whole and whose files have not
            changed. Everything else was removed.

    Raises:
        DataError: the folder cannot be written, or another process is at work on it.
    """

    def __init__(self, target: Path, purpose: Mapping[str, Any], sources: Mapping[str, Path]) -> None:
        self.target = target
        self.partial = target.with_name(f"{target.name}.partial")
        self.kept: dict[str, FrameRecord] = {}
        self._batch: list[tuple[FrameRecord, Any]] = []
        self._batch_bytes = 0
        self._files = contextlib.ExitStack()
        header = {"schema": SCHEMA, **purpose}
        with self._files, self._explained():
            self.partial.mkdir(parents=True, exist_ok=True)
            self._files.callback(_lock_folder(self.partial))
            left = self._read_journal(header)
            if not left:
                for path in self.partial.iterdir():
                    path.unlink()
            # the map must hold what is there; it grows when it is full
            size = 4 * BATCH_BYTES + sum(path.stat().st_size for path in self.partial.glob("data.mdb"))
            self._environment = lmdb.open(str(self.partial), map_size=size, lock=False, readahead=False)
            self._files.callback(self._environment.close)
            if left:
                self._keep(left, sources)
            lines = [json.dumps(header), *(json.dumps(asdict(record)) for record in self.kept.values())]
            write_text(self.partial / JOURNAL, "\n".join(lines) + "\n")
            self._journal = self._files.enter_context((self.partial / JOURNAL).open("ab", buffering=0))
            self._files = self._files.pop_all()  # all is well: they stay open until close()

    def __enter__(self) -> LmdbWriter:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the files; what was not committed is lost."""
        self._files.close()

    def _read_journal(self, header: Mapping[str, Any]) -> dict[str, FrameRecord]:
        """Records of an interrupted run for the same purpose."""
        path = self.partial / JOURNAL
        if not path.is_file():
            return {}
        records: dict[str, FrameRecord] = {}
        begun: object = None
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines()):
            # a full disk or a power cut spoils lines; what they noted is made again
            with contextlib.suppress(TypeError, ValueError):
                value = json.loads(line)
                if number == 0:
                    begun = value
                else:
                    records[value["key"]] = FrameRecord(**value)
        if begun == header:
            return records
        say(f"{self.partial}: was begun with other settings; starting again")
        return {}

    def _keep(self, left: Mapping[str, FrameRecord], sources: Mapping[str, Path]) -> None:
        """Fill `kept` from what is left of an interrupted run."""
        with (
            self._environment.begin(write=True, buffers=True) as transaction,
            progress(f"checking {self.partial.name}", len(left)) as advance,
        ):
            for key, record in left.items():
                value = transaction.get(key.encode())
                current = key in sources and record.same_source(sources[key])
                if current and value is not None and checksum(value) == record.checksum:
                    self.kept[key] = record
                advance(1)
            for stored in [bytes(key) for key in transaction.cursor().iternext(keys=True, values=False)]:
                if stored.decode() not in self.kept:
                    transaction.delete(stored)
        say(f"{self.partial}: continuing an interrupted run; {len(self.kept)} of {len(sources)} frames are there")

    def put(self, record: FrameRecord, data: Any) -> None:
        """Add an entry; `data` is any contiguous buffer."""
        self._batch.append((record, data))
        self._batch_bytes += memoryview(data).nbytes
        if self._batch_bytes >= BATCH_BYTES:
            self.commit()

    def commit(self) -> None:
        """Write what was put since the last commit.

        Raises:
            DataError: the disk is full or the folder cannot be written; what was committed before is kept.
        """
        batch, self._batch, self._batch_bytes = self._batch, [], 0
        with self._explained():
            while batch:
                try:
                    with self._environment.begin(write=True) as transaction:
                        for record, data in batch:
                            transaction.put(record.key.encode(), data)
                    break
                except lmdb.MapFullError:
                    self._environment.set_mapsize(self._environment.info()["map_size"] * 2)
            # only now: the journal never names an entry that is not in the database
            self._journal.write("".join(json.dumps(asdict(record)) + "\n" for record, _ in batch).encode())

    def finish(self, manifest: Manifest, meta_info: str | None) -> None:
        """Commit, put the lists beside the database, and give it its name; an older one of that name is replaced.

        Args:
            manifest: for `manifest.json`. meta_info: for BasicSR's `meta_info.txt`; None: there is none.
        """
        self.commit()
        old = self.target.with_name(f"{self.target.name}.old")
        with self._explained():
            self._environment.sync(True)
            if meta_info is not None:
                write_text(self.partial / META_INFO, meta_info)
            write_json(self.partial / MANIFEST, manifest.to_json())
            self._environment.close()
            close(self.target.resolve())
            shutil.rmtree(old, ignore_errors=True)
            if self.target.exists():
                self.target.rename(old)
            self.partial.rename(self.target)
            sync(self.target.parent)
            (self.target / JOURNAL).unlink()  # last, so that a run killed just before the renaming can be continued
        self.close()
        shutil.rmtree(old, ignore_errors=True)

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn a full disk, missing rights and the like into one line."""
        try:
            yield
        except (lmdb.Error, OSError) as error:
            there = next(p for p in (self.partial, *self.partial.parents) if p.exists())
            free = shutil.disk_usage(there).free
            # for LMDB a write that the disk had no room for is an input/output error
            reason = f"the disk is full ({error})" if free < BATCH_BYTES else str(error)
            raise DataError(
                f"{self.partial}: cannot be written: {reason}; {free >> 20} MB are free there. "
                "What is finished is kept: mend it and give the same command again"
            ) from None


def _lock_folder(folder: Path) -> Callable[[], None]:
    """Hold the folder against a second run; returns what lets it go again.

    Raises:
        DataError: another process holds it.
    """
    try:
        import fcntl
    except ImportError:  # Windows has no such locks
        return lambda: None
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise DataError(f"{folder}: another `lmdb make` is at work on it; wait for it, or stop it") from None
    return lambda: os.close(handle)
