"""Where the manifests are that the project ships, for whoever puts them into a cluster of its own."""

from __future__ import annotations

from pathlib import Path

from remediator.errors import PermanentError


def deploy_directory() -> Path:
    """Where the manifests are: beside the package in a checkout.

    Raises:
        PermanentError: this is an installation without them.
    """
    found = Path(__file__).resolve().parents[2] / "deploy"
    if not (found / "crds").is_dir():
        raise PermanentError(f"no manifests in {found}: run this from a checkout of the project")
    return found
