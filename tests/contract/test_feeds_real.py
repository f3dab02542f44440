"""What the controller's caches ask a real API server for: its audit log knows."""

from __future__ import annotations

import asyncio
import random

import pytest

from remediator.app.feeds import Feeds
from remediator.model.policy import PolicySpec
from tests.contract.guarded import Guarded
from tests.contract.live import CLOCK, connected, until

pytestmark = [pytest.mark.asyncio, pytest.mark.real_server]
KINDS = {"nodes", "remediations", "playbooks", "resourcepools", "remediationpolicies", "managednodes"}


async def test_the_caches_watch_six_kinds_and_never_a_lease(guarded: Guarded):
    """Leases are nearly all that a large cluster writes, and say nothing that a Node does not."""
    mark = guarded.plane.audit.mark()
    async with connected(guarded.kubeconfig) as transport:
        feeds = Feeds(transport, clock=CLOCK, rng=random.Random(1), policy=PolicySpec())
        jobs = [asyncio.ensure_future(job()) for job in feeds.jobs()]
        stores = (feeds.nodes, feeds.runs, feeds.playbooks, feeds.pools, feeds.policies, feeds.ledgers)
        try:
            await until(lambda: all(store.synced for store in stores), "all caches in sync")
        finally:
            for job in jobs:
                job.cancel()
            await asyncio.gather(*jobs, return_exceptions=True)
    asked = [
        each
        for each in guarded.plane.audit.since(mark)
        if each.username == "system:serviceaccount:remediator:remediator"
    ]

    assert {each.object_ref.resource for each in asked if each.verb in ("get", "list", "watch")} == KINDS
    watched = {each.object_ref.resource for each in asked if each.response_status.code == 200}
    assert watched == KINDS
