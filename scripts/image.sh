#!/usr/bin/env bash
# Build the image without a container daemon: scripts/image.sh [TAG]. With PYTHON_IMAGE=name@sha256:... over that base;
# without, over one made here from Debian's packages, which a registry serves better (same Dockerfile, same final steps).
# Needs Linux; buildah, and for the base debootstrap and root. As root on Debian both are installed when they are missing.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

tag=${1:-remediator:dev}
suite=bookworm
# chroot: needs neither user namespaces nor a runtime, so that it builds inside of a container too.
buildah=(buildah --storage-driver "${STORAGE_DRIVER:-vfs}")

need() {  # PROGRAM: on PATH, or installed from the Debian package of that name
    command -v "$1" >/dev/null 2>&1 && return
    if ((EUID == 0)) && command -v apt-get >/dev/null 2>&1; then
        echo "image: installing the Debian package $1" >&2
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive apt-get install -qq --yes --no-install-recommends "$1" >&2
    else
        echo "image: '$1' not found; install the package $1 (as root on Debian this script does it)" >&2
        exit 1
    fi
}

make_base() {  # NAME: Debian's Python in an image of its own, once
    local root working mirror
    need debootstrap
    ((EUID == 0)) || { echo "image: debootstrap needs root; or name a base: PYTHON_IMAGE=..." >&2; exit 1; }
    # The mirror that apt uses here, if this is that Debian; otherwise debootstrap's own.
    mirror=${DEBIAN_MIRROR:-$(apt-get indextargets --format '$(REPO_URI)' "Codename: $suite" "Identifier: Packages" \
        2>/dev/null | sed -n 1p || true)}
    root=$(mktemp -d)
    # shellcheck disable=SC2064  # the folder of now
    trap "rm -rf '$root'" EXIT
    echo "image: making the base $1 from Debian $suite" >&2
    debootstrap --variant=minbase --include=ca-certificates,python-is-python3,python3,python3-venv \
        "$suite" "$root/base" ${mirror:+"$mirror"} >"$root/log" || { tail -n 20 "$root/log" >&2; exit 1; }
    rm -rf "$root"/base/var/cache/apt/archives/*.deb "$root"/base/var/lib/apt/lists/*
    working=$("${buildah[@]}" from scratch)
    "${buildah[@]}" add --quiet "$working" "$root/base" / >/dev/null
    "${buildah[@]}" commit --quiet --rm "$working" "$1" >/dev/null
}

need buildah
if [[ -z ${PYTHON_IMAGE:-} ]]; then
    PYTHON_IMAGE=localhost/remediator-base:$suite
    "${buildah[@]}" inspect --type image "$PYTHON_IMAGE" >/dev/null 2>&1 || make_base "$PYTHON_IMAGE"
fi

# shellcheck source=scripts/uv-settings.sh
. scripts/uv-settings.sh
options=(
    --isolation chroot --layers --file Dockerfile --tag "$tag"
    --build-arg "PYTHON_IMAGE=$PYTHON_IMAGE"
    --build-arg "VERSION=$(sed -n 's/^__version__ = "\(.*\)"$/\1/p' remediator/__init__.py)"
    --build-arg "REVISION=$(git rev-parse HEAD 2>/dev/null || echo unknown)"
)
[[ -z ${UV_DEFAULT_INDEX:-} ]] || options+=(--build-arg "PIP_INDEX_URL=$UV_DEFAULT_INDEX")
[[ ! -f ${SSL_CERT_FILE:-} ]] || options+=(
    --secret "id=pip-cert,src=$SSL_CERT_FILE" --build-arg PIP_CERT=/run/secrets/pip-cert
)
"${buildah[@]}" build "${options[@]}" .
