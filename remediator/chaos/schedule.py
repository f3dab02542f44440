"""The words of a history: what goes wrong, when and how. Plain data, so that a case is a file.

Nothing here belongs to one controller. Numbers are those of the fault operators in docs/chaos.md.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from msgspec import Meta, Struct

FAULTS_MAX: Final = 64
EVENTS_MAX: Final = 256

ControllerName = Literal["remediator", "reference"]

Seconds = Annotated[float, Meta(ge=0, le=10_000_000)]
Share = Annotated[float, Meta(gt=0, le=1)]

FaultKind = Literal[
    "Conflict",  # F1: 409 of a write that was well
    "TooMany",  # F2: 429, with or without Retry-After
    "ErrorBefore",  # F3: 500, 503 or 504, nothing was done
    "Unauthorized",  # F29: 401, as of a token that has run out
    "Denied",  # F27: 403 of an admission webhook, for a write
    "NotServed",  # F28: 404 of the kind, as of a CRD between two versions; its watches end, and none opens
    "ErrorAfter",  # F4: 500 or 504, and it was done
    "LostReply",  # F4: the connection broke after it was done
    "Unanswered",  # F5: nothing comes back before the client gives up
    "Garbled",  # F12: what was done is answered with something that is no JSON
    "WatchRepeats",  # F8: an event comes twice
    "WatchLate",  # F8: events come ``seconds`` late, in their order
    "BookmarksMissing",  # F9: events come, and nothing says that there are no others
    "WatchEnds",  # F6: closed as the server does
    "WatchBreaks",  # F6: reset
    "WatchHangs",  # F6: half open, nobody says anything
    "HistoryGone",  # F7: watches end, and they and pages can't go on where they were: 410
    "CacheHangs",  # F10: watches and cached lists show the past, writes go on
    "Slow",  # F30: each answer takes longer
]
# What is asked of the server itself, and not of the way to it.
AT_SERVER: Final = frozenset(("HistoryGone", "CacheHangs"))
# What happens to whoever leads, and to no node.
LEADERS: Final = frozenset(("KillLeader", "StopLeader", "HaltLeader", "ClockJump"))
WATCHES: Final = frozenset(
    ("WatchEnds", "WatchBreaks", "WatchHangs", "WatchRepeats", "WatchLate", "BookmarksMissing")
)
# What strikes requests and watches alike.
BOTH: Final = frozenset(("NotServed",))

EventKind = Literal[
    "Xid",  # a page shows the XID ``value`` on GPU 0
    "RemapPending",  # the page says that a row remap is pending
    "Condition",  # a problem detector sets ``detail``, as TYPE=STATUS
    "Clear",  # and takes back all it has said of the node
    "Silent",  # F20, F21: the kubelet dies, for ``value`` seconds; 0 for ever
    "PagesLie",  # F22: the pages of the share ``value`` of all nodes show an XID
    "PageTrouble",  # F23: the page of a node answers with ``detail``
    "Heal",  # the page of a node is well again
    "Uncordon",  # F24: a person uncordons
    "Untaint",  # F24: a person removes every taint of a controller
    "Cordon",  # F24: a person cordons
    "OptOut",  # F24: a person keeps the controller off the node
    "PodsStay",  # F17: each pod of the node gets a finalizer, for ``value`` seconds; 0 for ever
    "DeleteNode",  # F25
    "RecreateNode",  # F19: under its name, with another uid
    "PeerMark",  # F25: an autoscaler marks the node as one that it is about to delete
    "KillLeader",  # F13
    "StopLeader",  # F15: a clean hand-over
    "HaltLeader",  # F14: it stands still for ``value`` seconds, right before its next write of ``detail``
    "ClockJump",  # F16: the wall clock of its machine moves by ``value`` seconds
    "PartDown",  # F32, F33: ``detail`` of the cluster's parts, for ``value`` seconds
    "RebootGoes",  # F34: the node's next reboots go as ``detail`` says
]


class Fault(
    Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel", omit_defaults=True
):
    """A fault of the API or of the way to it: ``share`` of the matching requests in a time, by dice.

    ``on`` narrows it to one resource (plural) and ``verb`` to one method; empty: all. ``seconds`` is
    a time that the kind has: Retry-After, or how much longer an answer takes.
    """

    kind: FaultKind
    from_s: Seconds
    to_s: Seconds
    share: Share = 1.0
    on: str = ""
    verb: str = ""
    seconds: Seconds = 0.0


class Event(
    Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel", omit_defaults=True
):
    """Something that happens once in the cluster."""

    at_s: Seconds = 0.0
    kind: EventKind
    node: str = ""
    value: float = 0.0
    detail: str = ""


class Schedule(
    Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel", omit_defaults=True
):
    """One history: a fleet, what goes wrong in it, and how long it is left alone afterwards.

    ``calm_s`` is the longest that it may take until nothing is under way any more. Times count from
    the moment at which a leader has settled. ``seed`` decides what is not said here. ``raised`` is how many
    nodes more than the controller's limits say may be out at once, in all and in each pool. ``bugs`` are
    planted in the reference controller; there are none in ours to switch on.
    """

    seed: int
    controller: ControllerName = "remediator"
    bugs: Annotated[tuple[str, ...], Meta(max_length=8)] = ()
    racks: Annotated[int, Meta(ge=1, le=64)] = 3
    per_rack: Annotated[int, Meta(ge=3, le=64)] = 8
    replicas: Annotated[int, Meta(ge=1, le=3)] = 2
    raised: Annotated[int, Meta(ge=0, le=8)] = 0
    faults: Annotated[tuple[Fault, ...], Meta(max_length=FAULTS_MAX)] = ()
    events: Annotated[tuple[Event, ...], Meta(max_length=EVENTS_MAX)] = ()
    calm_s: Seconds = 21_600.0

    @property
    def ends_s(self) -> float:
        """When the last thing goes wrong."""
        return max((0.0, *(each.to_s for each in self.faults), *(each.at_s for each in self.events)))
