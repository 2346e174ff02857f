# Sourced by demo.sh and test.sh: goes to the repository's folder and makes .venv with everything that is needed.
# Afterwards $bin is the folder of the environment's commands. PYTHON=/path/to/python chooses the interpreter.

cd "$(dirname "${BASH_SOURCE[0]}")/.."
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1
bin=$PWD/.venv/bin

say() { printf '%s\n' "$*"; }

find_python() {
    local candidate candidates=(python3 python3.14 python3.13 python3.12 python3.11 python3.10)
    [ -z "${PYTHON:-}" ] || candidates=("$PYTHON")
    for candidate in "${candidates[@]}"; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
            printf '%s' "$candidate"
            return
        fi
    done
    say "error: Python 3.10 or newer is needed; tried ${candidates[*]}. PYTHON=/path/to/python names another" >&2
    return 1
}

make_environment() {
    local python
    python=$(find_python)
    say "== making .venv with $("$python" --version)"
    if ! "$python" -m venv .venv; then
        rm -rf .venv
        say "error: $python cannot make virtual environments (Debian, Ubuntu: apt-get install python3-venv)" >&2
        return 1
    fi
}

install_packages() {
    say "== installing packages into .venv, versions as in constraints.txt (minutes the first time)"
    if [ "$(uname -s)" = Linux ] && ! command -v nvidia-smi >/dev/null; then
        say "   no NVIDIA driver here: PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu makes the download smaller"
    fi
    "$bin/python" -m pip --version >/dev/null 2>&1 || "$bin/python" -m ensurepip >/dev/null
    # torch first and by itself, so that nothing else brings another one
    "$bin/python" -m pip install -c constraints.txt torch
    "$bin/python" -m pip install -c constraints.txt -e '.[dev]'
}

check_opencv() {
    local message
    if ! message=$("$bin/python" -c 'import cv2' 2>&1); then
        say "error: OpenCV cannot be imported: ${message##*$'\n'}" >&2
        say "A missing libGL or libgthread comes with: apt-get install libgl1 libglib2.0-0" >&2
        say "or do without: .venv/bin/pip uninstall -y opencv-python && .venv/bin/pip install opencv-python-headless" >&2
        return 1
    fi
}

wanted=$(cat pyproject.toml constraints.txt | cksum)
[ -x "$bin/python" ] || make_environment
if [ "$(cat .venv/.installed 2>/dev/null)" != "$wanted" ]; then
    install_packages
    printf '%s\n' "$wanted" >.venv/.installed
fi
check_opencv
