"""Replies as a Table, for whoever asked to be shown columns instead of objects. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

import msgspec

from remediator.sim.front.columns import Column, columns_of
from remediator.sim.kinds import Kind
from remediator.sim.refusal import Json

META: Final = "meta.k8s.io/v1"
_decode = msgspec.json.decode
_encode = msgspec.json.encode


def wants_table(accept: str) -> bool:
    """Is the first form that the client takes a Table?"""
    first = accept.split(",")[0]
    return "as=Table" in first and "application/json" in first


def as_table(kind: Kind, body: bytes, now: datetime, *, include: str = "Metadata") -> bytes:
    """An object, or a list of them, as a Table.

    Args:
        kind: of all of them.
        body: as the server answered.
        now: for ages.
        include: what each row carries of its object: ``None``, ``Metadata`` or ``Object``.
    """
    found = _decode(body)
    objects = found.get("items", [found])
    meta = {key: value for key, value in found["metadata"].items() if key in _LIST_META}
    return _encode(_table(kind, objects, meta, now, include))


def as_table_event(kind: Kind, line: bytes, now: datetime, *, include: str = "Metadata") -> bytes:
    """One event of a watch, its object as a Table of one row; errors stay as they are."""
    event = _decode(line)
    type_, obj = event["type"], event["object"]
    if type_ == "ERROR":
        return line
    # A bookmark has a version and nothing to show.
    rows = [] if type_ == "BOOKMARK" else [obj]
    meta = {"resourceVersion": obj["metadata"].get("resourceVersion", "")}
    return _encode({"type": type_, "object": _table(kind, rows, meta, now, include)})


_LIST_META: Final = ("resourceVersion", "continue", "remainingItemCount")


def _table(kind: Kind, objects: Sequence[Json], meta: Json, now: datetime, include: str) -> Json:
    columns = columns_of(kind)
    return {
        "kind": "Table",
        "apiVersion": META,
        "metadata": meta,
        "columnDefinitions": [_definition(each) for each in columns],
        "rows": [_row(columns, each, now, include) for each in objects],
    }


def _definition(column: Column) -> Json:
    return {
        "name": column.name,
        "type": column.type,
        "format": column.format,
        "description": "",
        "priority": column.priority,
    }


def _row(columns: Sequence[Column], obj: Json, now: datetime, include: str) -> Json:
    row: Json = {"cells": [column.cell(obj, now) for column in columns]}
    if include == "Object":
        row["object"] = obj
    elif include != "None":
        row["object"] = {"kind": "PartialObjectMetadata", "apiVersion": META, "metadata": obj["metadata"]}
    return row
