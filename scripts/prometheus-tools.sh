#!/usr/bin/env bash
# Print the folder that holds promtool and amtool. On PATH they are taken from there; otherwise they are unpacked, once, from
# Debian's packages into the user's cache: nothing is installed, no service starts, and apt checks the packages' signatures.
set -euo pipefail

tools=(promtool amtool)
found() { for each in "${tools[@]}"; do [[ -x $1/$each ]] || return 1; done; }

if path=$(command -v promtool) && found "$(dirname "$path")"; then
    dirname "$path"
    exit 0
fi
cache=${XDG_CACHE_HOME:-$HOME/.cache}/remediator/prometheus-tools
if found "$cache"; then
    echo "$cache"
    exit 0
fi
if ! command -v apt-get >/dev/null 2>&1 || ! command -v dpkg-deb >/dev/null 2>&1; then
    echo "prometheus-tools: put ${tools[*]} on PATH (packages prometheus and prometheus-alertmanager on Debian)" >&2
    exit 1
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
fetch() { (cd "$work" && apt-get download -qq prometheus prometheus-alertmanager >"$work/log" 2>&1); }
if ! fetch; then
    # A fresh machine has no lists yet; only root may get them.
    if ((EUID != 0)) || ! apt-get update -qq >"$work/log" 2>&1 || ! fetch; then
        echo "prometheus-tools: apt-get download failed; put ${tools[*]} on PATH. It said:" >&2
        tail -n 5 "$work/log" >&2
        exit 1
    fi
fi
for package in "$work"/*.deb; do dpkg-deb -x "$package" "$work/tree"; done
mkdir -p "$cache"
# A rename of its own each: two that do this at once, or one that is stopped, leave whole programs only.
for each in "${tools[@]}"; do
    cp "$work/tree/usr/bin/$each" "$cache/$each.$$"
    mv "$cache/$each.$$" "$cache/$each"
done
echo "$cache"
