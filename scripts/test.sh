#!/usr/bin/env bash
# Checks everything that is checked before a change goes in: formatting, lint, types, tests. Makes .venv if there is none.
#
#     bash scripts/test.sh [arguments for pytest]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

failed=()

check() {
    local name=$1 started=$SECONDS
    shift
    say "== $name: $*"
    if "$bin/$1" "${@:2}" </dev/null; then
        say "   $name: passed in $((SECONDS - started)) s"
    else
        say "   $name: FAILED after $((SECONDS - started)) s"
        failed+=("$name")
    fi
}

check formatting ruff format --check .
check lint ruff check .
check types mypy
check tests pytest -q "$@"

if [ ${#failed[@]} -gt 0 ]; then
    say "== FAILED: ${failed[*]} (see above; each line that begins with == can be run again from .venv/bin)"
    exit 1
fi
say "== all four passed in $SECONDS s. Tests lie in tests/, slow ones run with: .venv/bin/pytest -m slow"
