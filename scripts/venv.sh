#!/usr/bin/env bash
# Make or refresh .venv from the hash-checked locks. Safe to run twice, and by two people at once.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

venv=.venv
python=${PYTHON:-python3}

if ! command -v "$python" >/dev/null 2>&1; then
    echo "venv: '$python' not found; install Python 3.11 or newer, or name one: make venv PYTHON=python3.12" >&2
    exit 1
fi
if ! "$python" -c '' 2>/dev/null; then
    echo "venv: '$python' is there but does not run: $("$python" -V 2>&1 | head -n 1)" >&2
    exit 1
fi
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    echo "venv: '$python' is $("$python" -V 2>&1), but 3.11 or newer is needed; name one: make venv PYTHON=python3.12" >&2
    exit 1
fi

# Two makes in one tree would otherwise install into the same folder at the same time.
if command -v flock >/dev/null 2>&1; then
    exec 9>.venv.lock
    flock --timeout 600 9 || { echo "venv: another make has held .venv.lock for 10 minutes" >&2; exit 1; }
fi

# The stamp holds what the environment was made from, so that a touched but unchanged lock costs nothing.
wanted=$(cat requirements/uv.txt requirements/dev.txt pyproject.toml scripts/venv.sh | cksum)
if [[ -x $venv/bin/python && -f $venv/stamp && $(<"$venv/stamp") == "$wanted" ]]; then
    touch "$venv/stamp"
    exit 0
fi

# A folder moved here from elsewhere, or whose Python is gone, is made anew.
if ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
    "$python" -m venv --clear "$venv" || {
        echo "venv: '$python -m venv' failed; on Debian and Ubuntu the package python3-venv is needed" >&2
        exit 1
    }
fi
pip=("$venv/bin/python" -m pip --disable-pip-version-check --no-input --quiet)
"${pip[@]}" install --require-hashes --only-binary :all: -r requirements/uv.txt

# shellcheck source=scripts/uv-settings.sh
. scripts/uv-settings.sh
uv=("$venv/bin/uv" --quiet pip)
"${uv[@]}" sync --python "$venv/bin/python" --require-hashes requirements/dev.txt
"${uv[@]}" install --python "$venv/bin/python" --no-deps --no-build-isolation --editable .

printf '%s\n' "$wanted" >"$venv/stamp"
echo "venv: ready in $venv ($("$venv/bin/python" -V))"
