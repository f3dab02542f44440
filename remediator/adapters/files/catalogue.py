"""Loads the XID catalogue that ships with the package. JSON, since that takes 1 ms and YAML 0.7 s."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources

import msgspec

from remediator.errors import ContractError
from remediator.model.xid import XidCatalogue, XidEntry

FORMAT = 1


def load_catalogue() -> XidCatalogue:
    """Read the shipped catalogue.

    Raises:
        ContractError: the package data is damaged or of another format; only a broken build does that.
    """
    raw = resources.files("remediator").joinpath("data/xid-catalogue.json").read_bytes()
    try:
        catalogue = msgspec.json.decode(raw, type=XidCatalogue)
    except msgspec.DecodeError as error:
        raise ContractError(f"data/xid-catalogue.json does not decode: {error}") from error
    if catalogue.format != FORMAT:
        raise ContractError(
            f"data/xid-catalogue.json has format {catalogue.format}, this build reads {FORMAT}"
        )
    return catalogue


def by_code(catalogue: XidCatalogue) -> Mapping[int, XidEntry]:
    """Rows by code."""
    return {entry.code: entry for entry in catalogue.xids}
