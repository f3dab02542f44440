"""What is known of one NVIDIA XID code. Values only; ``adapters.files.catalogue`` loads them."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

Standing = Literal["Fault", "Hint", "Application", "Unspecified"]


class XidEntry(Struct, frozen=True, gc=False, rename="camel"):
    """One row of the catalogue.

    ``standing`` is what the code may be used for. ``Fault``: the vendor asks for more than a
    restart of the program, so it may be a reason to act on a node. ``Hint``: it says something
    about the hardware, but never enough alone (63 records a repair, 94 was contained, 144-150 need
    decoding). ``Application``: the program did it; never a reason to touch a node. ``Unspecified``:
    no data-centre product raises it, or nobody says what to do.

    ``action`` is the vendor's own name of the immediate action. ``fatal_votes`` of ``votes``
    published catalogues call the code fatal. ``sticky``: it is a state that lasts until
    ``cleared_by``.
    """

    code: int
    mnemonic: str
    meaning: str
    standing: Standing
    origin: str
    action: str
    scope: str
    cleared_by: str
    sticky: bool
    fatal_votes: int
    votes: int


class XidCatalogue(Struct, frozen=True, rename="camel"):
    """The catalogue as it ships: rows by rising code, and where they come from."""

    format: int
    title: str
    words: str
    sources: dict[str, str]
    xids: tuple[XidEntry, ...]
