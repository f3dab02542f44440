"""Requests per second that the controller sends while nothing happens, from the audit log."""

from __future__ import annotations

import time
from collections import Counter
from datetime import timedelta
from typing import Final

from bench.context import Context
from bench.results import Count, Finding, at_most
from bench.scene import Scene
from remediator.fleet.workloads import (
    Workload,
)
from remediator.testbed.stage import USER, Stage
from remediator.testbed.waiting import now

SETTLE_S: Final = 30.0
SECONDS_MIN: Final = 60.0


def measure(context: Context, *, nodes: int = 0) -> Finding:
    """Let the controller settle, and count.

    Args:
        context: how long, at least a minute.
        nodes: how many, without exporters and pods; 0: the standard fleet with both.
    """
    seconds = max(SECONDS_MIN, context.seconds)
    with _stage(context, nodes) as stage:
        stage.start_controller(pages=not nodes)
        time.sleep(SETTLE_S)
        mark = stage.audit.mark()
        began = now()
        context.tell(f"counting for {seconds:g} s")
        time.sleep(seconds)
        ended = began + timedelta(seconds=seconds)
        # A watch has two records, at its start and its end; a request counts when it was received.
        found = {
            record.audit_id: f"{record.verb} {record.object_ref.resource or record.request_uri}"
            for record in stage.audit.since(mark)
            if record.username == USER and began <= record.received_at < ended
        }
        size = len(stage.specs)
    kinds = Counter(found.values())
    return Finding(
        checks=(at_most("requests per second", len(found) / seconds, 1.0),),
        counts=tuple(
            Count(name=f"{name}, per minute", value=round(number * 60 / seconds, 2))
            for name, number in sorted(kinds.items())
        ),
        conditions={
            "nodes": size,
            "nodeSize": "full",
            "seconds": seconds,
            "settledFor": SETTLE_S,
            "lease": "15 s, renewed every 2 s",
            "exporters": "none" if nodes else "all nodes, every 1 s (they are no API requests)",
        },
    )


def _stage(context: Context, nodes: int) -> Stage:
    directory = context.directory / "stage"
    if nodes:
        return Scene(directory, context.binaries, nodes=nodes, size="full")
    return Stage(directory, context.binaries, workload=Workload())
