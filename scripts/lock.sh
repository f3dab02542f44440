#!/usr/bin/env bash
# Write the locks anew from pyproject.toml and requirements/uv.in. Pins stay where they are unless UPGRADE=1.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# shellcheck source=scripts/uv-settings.sh
. scripts/uv-settings.sh

compile=(
    .venv/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes
    --no-emit-index-url --no-emit-find-links --no-header
)
[[ ${UPGRADE:-} != 1 ]] || compile+=(--upgrade)

"${compile[@]}" requirements/uv.in --output-file requirements/uv.txt
"${compile[@]}" pyproject.toml --output-file requirements/run.txt
"${compile[@]}" --group build --output-file requirements/build.txt
# What is tested is what is shipped: the same versions as in the two locks above.
"${compile[@]}" --constraints requirements/run.txt --constraints requirements/build.txt \
    pyproject.toml --extra testbed --extra sim --group dev --output-file requirements/dev.txt
