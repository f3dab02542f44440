"""How one controller shows itself in an audit log: its user, its marks, its term, its limits.

A profile is a YAML file. A rule that needs what the profile does not say answers *unknown*.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Final

from msgspec import Meta, Struct

from remediator.adapters.files.single import located, parse_single, read_single
from remediator.adapters.files.tree import Tree
from remediator.errors import InputError, Problem

SHIPPED: Final = ("plain", "reference", "remediator")

Key = Annotated[str, Meta(min_length=1, max_length=317)]


class Own(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the controller may write on Nodes: its taints, and keys of labels, annotations and taints.

    A key that ends with ``/`` means all keys below it. ``fence`` are the taints behind which it works.
    """

    fence: tuple[Key, ...] = ()
    keys: tuple[Key, ...] = ()


class Term(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel"):
    """How a request shows under which leadership it was sent: a pattern of its User-Agent with one group.

    ``resources`` are those whose writes must not go back to an older term, with subresource.
    """

    user_agent: Annotated[str, Meta(min_length=1, max_length=256)]
    resources: tuple[Key, ...]


class Plan(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel"):
    """How a request shows for which piece of work it was sent: a pattern of its User-Agent with one group."""

    user_agent: Annotated[str, Meta(min_length=1, max_length=256)]


class Claims(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the controller writes which spare is promised to whom: a list in an object of its own.

    ``path`` leads to the list, with dots; ``spare`` and ``holder`` are fields of its items.
    """

    resource: Key
    path: Key
    spare: Key
    holder: Key


class Reasons(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel"):
    """Where a piece of work says why it was begun: a list in its object.

    Items whose field ``source`` is ``is_condition`` mean a condition of the Node, its type in the field
    ``condition``; ``status`` is a pattern of the field ``text`` with one group. Others mean what no API
    server knows. ``goes_on`` has the paths and values by which a piece of work says that it goes on with
    an older one's, whose reasons it repeats: the machine was registered anew in the middle.
    """

    path: Key
    source: Key
    is_condition: Key
    condition: Key
    text: Key
    status: Key
    goes_on: dict[str, str] = {}


class Runs(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the controller keeps book of each piece of work: an object of its own for each.

    ``state``, ``node`` and ``uid`` (of that Node) are paths with dots. ``settled`` are states that nobody
    waits for any more; ``keeps`` those in which the node stays fenced; ``parked`` those in which a faulty
    node is left alone for a reason that the record tells.
    """

    resource: Key
    state: Key
    node: Key
    settled: tuple[str, ...]
    keeps: tuple[str, ...]
    parked: tuple[str, ...] = ()
    uid: str = ""
    reasons: Reasons | None = None


class Fault(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A condition of a Node that means a fault which the controller answers."""

    condition: Key
    status: Key = "True"


class Reboots(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the controller creates to have a machine rebooted.

    ``node`` and ``attempt`` are paths with dots to the node's name, and to what is the same for two
    requests that mean one reboot.
    """

    resource: Key
    node: Key
    attempt: Key


class Lease(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The Lease that whoever leads renews, and the longest time between two renewals in calm."""

    name: Key
    seconds: Annotated[float, Meta(gt=0, le=86_400)]


class Storm(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """No more than ``most`` nodes are newly fenced within ``seconds``, whatever is broken."""

    most: Annotated[int, Meta(ge=1, le=100_000)]
    seconds: Annotated[float, Meta(gt=0, le=86_400)]


class Budget(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """At most so many nodes that carry this label may be fenced at once."""

    label: Key
    value: str
    most: Annotated[int, Meta(ge=0, le=100_000)]


class Pools(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The label that says in which pool a node is; ``spare`` are pools whose nodes wait for work.

    ``alike`` are labels that are the same on a spare and on the node that it stands in for.
    """

    label: Key
    spare: tuple[str, ...]
    alike: tuple[Key, ...] = ()


class Joins(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The taint behind which new nodes wait, and how many come in: ``count`` in ``seconds``, and ``burst``.

    ``proof`` is the condition by which a Node says that it is fit.
    """

    gate: Key
    count: Annotated[int, Meta(ge=1, le=100_000)]
    seconds: Annotated[float, Meta(gt=0, le=86_400)]
    burst: Annotated[int, Meta(ge=1, le=100_000)] = 1
    proof: str = ""


class Limits(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel"):
    """``heartbeats`` are resources that are written again and again by design, and are not counted."""

    heartbeats: tuple[Key, ...] = ("leases",)
    writes_per_object_per_minute: Annotated[int, Meta(ge=1, le=100_000)] = 60


class Profile(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel"):
    """One controller.

    ``peers`` are taints by which others say that a node is theirs to delete; ``opt_out`` is a label by
    which people keep the controller off a node. ``veto_seconds``: so long a fence that somebody took away
    stays away. ``floor``: so many spares stay unpromised. ``longest`` is for how many seconds a piece of
    work may stand in a state. ``read_only`` is an identity that must write nothing.
    """

    name: Annotated[str, Meta(min_length=1, max_length=63)]
    user: str = ""
    own: Own | None = None
    term: Term | None = None
    plan: Plan | None = None
    claims: Claims | None = None
    runs: Runs | None = None
    budgets: tuple[Budget, ...] = ()
    limits: Limits = Limits()
    peers: tuple[Key, ...] = ()
    faults: tuple[Fault, ...] = ()
    reboots: Reboots | None = None
    lease: Lease | None = None
    storm: Storm | None = None
    pools: Pools | None = None
    joins: Joins | None = None
    longest: Annotated[Mapping[str, Annotated[float, Meta(gt=0, le=10_000_000)]], Meta(max_length=64)] = {}
    floor: Annotated[int, Meta(ge=0, le=100_000)] = 0
    opt_out: str = ""
    veto_seconds: Annotated[float, Meta(ge=0, le=10_000_000)] = 0.0
    read_only: bool = False

    def owns(self, key: str) -> bool:
        """May the controller write this key of a label, annotation or taint on a Node?"""
        keys = (*self.own.fence, *self.own.keys) if self.own is not None else ()
        return any(key == each or (each.endswith("/") and key.startswith(each)) for each in keys)


def load_profile(name: str) -> Profile:
    """A shipped profile by its name, or one from a file.

    Raises:
        InputError: there is none, or something in it can't be; names file, line, field and the fix.
    """
    if name in SHIPPED:
        text = (files("remediator.chaos") / "profiles" / f"{name}.yaml").read_text(encoding="utf-8")
        return parse_profile(text, name)
    path = Path(name)
    if not path.exists():
        fix = f"write a file, or one of {', '.join(SHIPPED)}"
        raise InputError((Problem(name, 0, 0, "", "no such profile", fix),))
    return _checked(*read_single(path, Profile), name)


def parse_profile(text: str, name: str) -> Profile:
    """Read the YAML text of a profile; ``name`` is for messages."""
    return _checked(*parse_single(text, name, Profile), name)


def _checked(profile: Profile, tree: Tree, file: str) -> Profile:
    found = []
    for path, pattern in _patterns(profile):
        try:
            groups = re.compile(pattern).groups
        except re.error as error:
            found.append(located(tree, file, path, f"no pattern: {error}", "mend the regular expression"))
            continue
        if groups != 1:
            wrong = f"{groups} groups instead of one"
            found.append(located(tree, file, path, wrong, "put what counts in brackets, and only that"))
    if found:
        raise InputError(tuple(found))
    return profile


def _patterns(profile: Profile) -> Iterator[tuple[tuple[str, ...], str]]:
    if profile.term is not None:
        yield ("term", "userAgent"), profile.term.user_agent
    if profile.plan is not None:
        yield ("plan", "userAgent"), profile.plan.user_agent
    if profile.runs is not None and profile.runs.reasons is not None:
        yield ("runs", "reasons", "status"), profile.runs.reasons.status
