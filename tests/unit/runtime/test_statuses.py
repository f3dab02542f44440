"""What `kubectl get` and the metrics page show: true, and written only when it changed."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from remediator.errors import PermanentError
from remediator.model.playbook import PlaybookStatus
from remediator.model.pool import PoolStatus
from tests.unit.core.builders import a_pool
from tests.unit.runtime.fates import Fails
from tests.unit.runtime.rig import Rig, hard, roomy, with_exporter, xid_book


def pool(rig: Rig, name: str = "train") -> PoolStatus:
    return msgspec.convert(rig.server.get("pools", name).get("status", {}), PoolStatus)


def playbook(rig: Rig, name: str = "p") -> PlaybookStatus:
    return msgspec.convert(rig.server.get("playbooks", name).get("status", {}), PlaybookStatus)


async def once(rig: Rig) -> int:
    """One round; how many writes it took."""
    before = len(rig.server.sent)
    await rig.finish(rig.statuses.once())
    return len(rig.server.sent) - before


@pytest.mark.asyncio
async def test_statuses_show_the_pool_in_numbers():
    """Members, serving, spares that fit, and the limit as an integer."""
    rig = Rig()
    rig.change("nodes", "gpu-2", {"spec": {"unschedulable": True}})
    rig.change("nodes", "spare-2", {"spec": {"unschedulable": True}})

    await once(rig)

    shown = pool(rig)
    assert (shown.nodes, shown.serving, shown.not_serving, shown.spares) == (5, 4, 1, 1)
    assert shown.limit == 5
    assert (pool(rig, "buffer").nodes, pool(rig, "buffer").limit) == (2, 0)


@pytest.mark.asyncio
async def test_statuses_count_machines_that_are_away():
    """A machine in repair is no member any more; whoever plans capacity asks where it went."""
    rig = Rig()
    await once(rig)
    away = [pool(rig).out]
    rig.break_node("gpu-1")
    for _ in range(60):
        await rig.round(1.0)
        await once(rig)
        away.append(pool(rig).out)
        rig.gauges.once()
        assert f'remediator_nodes{{pool="train",state="out"}} {away[-1]}.0' in rig.metrics.render().decode()

    assert (away[0], max(away), away[-1]) == (0, 1, 0)


@pytest.mark.asyncio
async def test_statuses_are_written_once():
    """A status that is true already costs nothing."""
    rig = Rig()

    assert await once(rig) > 0
    rig.clock.stand_still(600)
    rig.fresh()
    assert await once(rig) == 0


@pytest.mark.asyncio
async def test_statuses_keep_the_last_good_playbook_in_force():
    """An edit that can't be followed changes nothing but the condition."""
    rig = Rig()
    await once(rig)
    steps = [{"id": "drain", "drain": {}}, {"id": "drain", "drain": {}}]
    rig.change("playbooks", "p", {"spec": {"steps": steps}})

    await once(rig)

    shown = playbook(rig)
    assert [(each.type, each.status, each.reason) for each in shown.conditions] == [
        ("Ready", "False", "InvalidSpec")
    ]
    assert (shown.in_force_generation, shown.observed_generation) == (1, 2)
    rig.break_node()
    await rig.fleet_pass()
    assert rig.run("machine-gpu-1-1").spec.playbook.generation == 1


@pytest.mark.asyncio
async def test_statuses_of_one_object_stop_no_other():
    """A pool whose status is refused must not keep the playbooks' last good versions unwritten."""
    rig = Rig()
    rig.server.fate("SavePoolStatus", Fails(PermanentError("422", status=422)))

    await once(rig)

    assert playbook(rig).in_force
    assert (pool(rig, "buffer").nodes, pool(rig).nodes) == (0, 5)


@pytest.mark.asyncio
async def test_statuses_name_pools_that_overlap():
    """Two pools with one membership label: both say so."""
    rig = Rig(
        pools=[a_pool("train"), a_pool("twin", membership={"key": "example.com/pool", "value": "train"})]
    )

    await once(rig)

    ready = next(each for each in pool(rig).conditions if each.type == "Ready")
    assert (ready.status, ready.reason) == ("False", "PoolOverlap")


@pytest.mark.asyncio
async def test_statuses_name_keys_that_are_not_listed():
    """Seen while it is in Audit, and not when the first run stands still."""
    rig = Rig(policy=roomy(node_keys=("nvidia.com/gpu", "team")))

    await once(rig)

    ready = next(each for each in pool(rig).conditions if each.type == "Ready")
    assert (ready.status, ready.reason) == ("False", "KeyNotListed")
    assert "writes example.com/pool;" in ready.message


@pytest.mark.parametrize(
    ("uuid", "said"),
    [
        ("machine-gpu-2", ("False", "IdentityConflict", "gpu-1, gpu-2: another live Node")),
        ("Not Specified", ("False", "IdentityWeak", "gpu-1: known by the Node's uid only")),
        ("ABC-1", ("True", "Known", "")),
    ],
)
@pytest.mark.asyncio
async def test_statuses_name_nodes_without_an_identity_of_their_own(uuid, said):
    """What is remembered of a machine, and whether it may be touched, hangs on it."""
    rig = Rig()
    rig.change("nodes", "gpu-1", {"status": {"nodeInfo": {"bootID": "b", "systemUUID": uuid}}})

    await once(rig)

    found = next(each for each in pool(rig).conditions if each.type == "Identity")
    assert (found.status, found.reason, found.message[: len(said[2])]) == said
    assert said[2] or not found.message


@pytest.mark.asyncio
async def test_statuses_wait_for_whole_caches():
    """Half a list is no number."""
    rig = Rig()
    rig.server.feeds["nodes"].store.synced = False

    assert await once(rig) == 0


@pytest.mark.asyncio
async def test_gauges_stand_for_what_is_known_now():
    """Every gauge comes from the real table of metrics, and falls back to zero by itself."""
    rig = Rig(playbooks=[hard("quarantine", "drain"), xid_book(79, name="xid")], policy=with_exporter())
    rig.page("gpu-1")
    rig.break_node()
    await rig.fleet_pass()
    rig.gauges.once()
    shown: Any = rig.metrics.gauges

    assert shown["remediator_runs_active"] == 1
    assert shown["remediator_open_faults gpu.bad"] == 1
    assert shown["remediator_nodes train serving"] == 5
    assert shown["remediator_pages fresh"] == 1
    assert shown["remediator_pages waiting"] == 6
    rig.heal_node()
    rig.clock.stand_still(60)
    rig.fresh()
    await rig.fleet_pass()
    rig.gauges.once()
    assert shown["remediator_open_faults gpu.bad"] == 0
    assert shown["remediator_pages fresh"] == 0


@pytest.mark.asyncio
async def test_gauges_show_pauses_and_breakers():
    """A paused pool and an open breaker are seen without reading any object."""
    rig = Rig()
    breaker = {"scope": "class/gpu.bad", "state": "Open", "since": "2026-01-01T00:00:00Z"}
    rig.change("policies", "cluster", {"status": {"breakers": [breaker]}, "spec": {"pause": {"by": "ann"}}})

    rig.gauges.once()
    assert rig.metrics.gauges["remediator_paused policy"] == 1
    assert rig.metrics.gauges["remediator_breaker_state class/gpu.bad Open"] == 1
    rig.change("policies", "cluster", {"status": {"breakers": None}, "spec": {"pause": None}})
    rig.gauges.once()

    assert rig.metrics.gauges["remediator_paused policy"] == 0
    assert rig.metrics.gauges["remediator_breaker_state class/gpu.bad Open"] == 0
    assert rig.metrics.gauges["remediator_breaker_state class/gpu.bad Closed"] == 1
