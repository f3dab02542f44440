"""Lets something happen in a simulated cluster that somebody else drives: an event comes in as JSON."""

from __future__ import annotations

import msgspec

from remediator.chaos.incidents import Incidents
from remediator.chaos.lint import of_event
from remediator.chaos.schedule import LEADERS, Event
from remediator.model.keys import LABEL_OPT_OUT
from remediator.sim.refusal import Json
from remediator.sim.world.cluster import Cluster


def happen(cluster: Cluster, body: bytes) -> Json:
    """Let one event happen now; says whether it could.

    Raises:
        ValueError: there is no such event, or not on this fleet; names the field and the fix.
    """
    try:
        event = msgspec.json.decode(body, type=Event)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ValueError(f"no event: {error}") from error
    if event.kind in LEADERS:
        raise ValueError(f"kind: {event.kind} is for histories only; end the controller's process yourself")
    nodes = [spec.name for spec in cluster.specs if spec.gpus]
    for field, wrong, fix in of_event(event, nodes):
        raise ValueError(f"{field[0]}: {wrong}; {fix}")
    return {"happened": Incidents(cluster, opt_out=LABEL_OPT_OUT).happen(event)}
