#!/usr/bin/env bash
# Start the image that `make image` built, as the Deployment would. Needs podman, runc and root; as root on Debian both
# packages are installed when they are missing. runc, since crun refuses machines with both versions of cgroups.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

missing=()
for each in podman runc; do command -v "$each" >/dev/null 2>&1 || missing+=("$each"); done
if ((${#missing[@]})); then
    if ((EUID != 0)) || ! command -v apt-get >/dev/null 2>&1; then
        echo "image-test: install ${missing[*]} (as root on Debian this script does it)" >&2
        exit 1
    fi
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -qq --yes --no-install-recommends "${missing[@]}" >&2
fi
exec .venv/bin/python -m pytest tests/image "$@"
