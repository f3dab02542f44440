"""What happens in the demo, and when: faults and people. All else is the controller's own doing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, Literal

from remediator.chaos.schedule import Event, EventKind

LIARS: Final = 0.4  # the share of all pages
RACK: Final = "d"
RACK_OFF_S: Final = 600.0
ENDS_S: Final = 3_000.0


@dataclass(frozen=True, slots=True)
class Moment:
    """Something that happens at a time of the story; ``title`` begins a chapter.

    ``spares`` happens to every node that is in the buffer then. ``untouched`` is a node of which it is told
    whether anything was done to it.
    """

    at_s: float
    who: str
    text: str
    events: tuple[Event, ...] = ()
    title: str = ""
    spares: Literal["", "Cordon", "Uncordon"] = ""
    untouched: str = ""


def story() -> tuple[Moment, ...]:
    """All moments, in the order of their times."""
    return (*_one_at_a_time(), *_many_at_once())


def _one_at_a_time() -> tuple[Moment, ...]:
    """What a playbook is for."""
    return (
        Moment(
            20,
            "gpu-b-02",
            "GPU 0 reports XID 79 on its exporter's page: it has fallen off the bus",
            _events(20, "Xid", ("gpu-b-02",), value=79),
            "a GPU falls off the bus",
        ),
        Moment(
            180,
            "gpu-e-05",
            "GPU 0 wants a row remap: a soft fault, it needs a reboot but no hurry",
            _events(180, "RemapPending", ("gpu-e-05",)),
            "a soft fault: the spare comes first",
        ),
        Moment(
            360,
            "gpu-f-03",
            "GPU 0 reports XID 79; its reboot Job will hang",
            (
                *_events(360, "RebootGoes", ("gpu-f-03",), detail="job hangs"),
                *_events(360, "Xid", ("gpu-f-03",), value=79),
            ),
            "a person says no in mid-run",
        ),
        Moment(
            450,
            "alice",
            "$ kubectl uncordon gpu-f-03",
            _events(450, "Uncordon", ("gpu-f-03",)),
        ),
    )


def _many_at_once() -> tuple[Moment, ...]:
    """What limits are for."""
    return (
        Moment(
            720,
            f"rack {RACK}",
            f"loses power: eight kubelets fall silent, for {RACK_OFF_S / 60:.0f} minutes",
            _events(720, "Silent", [f"gpu-{RACK}-{slot:02}" for slot in range(1, 9)], value=RACK_OFF_S),
            "a rack dies",
        ),
        Moment(
            2_160,
            "operator",
            "needs the spares for something else, and cordons all of them",
            title="no spare is left",
            spares="Cordon",
        ),
        Moment(
            2_180,
            "gpu-g-01",
            "GPU 0 wants a row remap",
            _events(2_180, "RemapPending", ("gpu-g-01",)),
        ),
        Moment(2_570, "gpu-g-01", "waits for a spare, as its playbook says", untouched="gpu-g-01"),
        Moment(
            2_580,
            "operator",
            "gives the spares back",
            spares="Uncordon",
        ),
        Moment(
            2_640,
            "exporters",
            f"a bad release rolls out: {LIARS:.0%} of all pages show XID 79, and nothing is the matter",
            _events(2_640, "PagesLie", ("",), value=LIARS),
            "two in five exporters lie",
        ),
    )


def _events(at_s: float, kind: EventKind, nodes: Iterable[str], **more: Any) -> tuple[Event, ...]:
    return tuple(Event(at_s=at_s, kind=kind, node=node, **more) for node in nodes)
