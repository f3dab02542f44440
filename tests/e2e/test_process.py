"""What an operator sees of the process itself: its probes, its log, and its name in the audit log."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Final

import pytest

from remediator.adapters.kube.caller import Caller
from remediator.testbed.binaries import Binaries
from remediator.testbed.pipe import Pipe
from remediator.testbed.replica import Replica
from remediator.testbed.stage import USER, Stage
from remediator.testbed.waiting import wait_until
from tests.e2e.small_world import BAD, open_fleet

KIND: Final = "resourcepools"
ROLE: Final = "/apis/rbac.authorization.k8s.io/v1/clusterroles/remediator-audit"
ANSWER_S: Final = 60.0
AGENT: Final = re.compile(
    r"remediator/\d\S* \((standby|term=\d+(; run=[\w.-]+)?(; step=[\w.-]+)?(; attempt=\d+)?)\)"
)


def audit_ids(replica: Replica, count: int) -> set[str]:
    """The IDs of its first requests, from what its log says first."""
    (began,) = replica.lines("starting")
    caller = Caller("any", rng=Random(f"{began['seed']} {began['identity']}"))
    return {caller.headers()["Audit-ID"] for _ in range(count)}


@dataclass(frozen=True)
class Pair:
    """A leader behind a pipe and a standby beside it, on a small fleet."""

    stage: Stage
    pipe: Pipe
    leader: Replica
    standby: Replica


@pytest.fixture(scope="module")
def pair(control_plane_binaries: Binaries, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    folder = tmp_path_factory.mktemp("process") / "stage"
    with (
        Stage(folder, control_plane_binaries, specs=open_fleet()) as stage,
        Pipe(stage.cluster.layout.api) as pipe,
    ):
        stage.start_controller(server=pipe.url)
        standby = stage.replica("standby")
        standby.start()
        try:
            yield Pair(stage, pipe, stage.controller, standby)
        finally:
            standby.stop()


def await_ready(replica: Replica) -> None:
    wait_until(
        lambda: replica.ask("/readyz") == (200, "ok\n"),
        timeout_s=ANSWER_S,
        what="readiness",
        detail=lambda: f"\n{replica.ask('/readyz')}",
    )


@pytest.mark.timeout(180)
def test_leader_and_standby_answer_every_probe(pair: Pair) -> None:
    """A standby that is not ready is no standby, and one that is not scraped is not known to be one."""
    for replica, leads in ((pair.leader, True), (pair.standby, False)):
        await_ready(replica)

        assert replica.ask("/healthz") == (200, "ok\n")
        status, page = replica.ask("/metrics")
        assert status == 200
        assert f"remediator_leader {float(leads)}" in page
        assert "remediator_lease_failing 0.0" in page
        shown = json.loads(replica.ask("/statusz")[1])
        assert (shown["leading"], shown["notReady"], shown["blind"]) == (leads, [], "")
        assert shown["lease"]["holder"] == pair.leader.lines("starting")[0]["identity"]


@pytest.mark.timeout(180)
def test_right_that_was_taken_away_is_named_until_it_is_given_back(pair: Pair) -> None:
    """The commonest way to go blind; nothing else than the reason on /readyz tells it from a dead server."""
    stage, leader = pair.stage, pair.leader
    await_ready(leader)
    rules = stage.api.get(ROLE)["rules"]
    stage.api.merge_patch(ROLE, {"rules": [rule for rule in rules if rule["resources"] != [KIND]]})
    try:
        await_right(stage, "no")
        pair.pipe.cut()
        _, text = wait_until(
            lambda: found if (found := leader.ask("/readyz"))[0] == 503 else None,
            timeout_s=ANSWER_S,
            what="503 on /readyz",
        )
        assert re.match(rf"{KIND}: watch broken since \d{{4}}-\S+Z: refused: .*forbidden", text), text
        assert leader.ask("/healthz")[0] == 200, "a restart would not help"
        wait_until(
            lambda: re.search(rf'watch_broken_seconds{{kind="{KIND}"}} [1-9]', leader.ask("/metrics")[1]),
            timeout_s=ANSWER_S,
            what="the metric",
        )
        told = wait_until(
            lambda: [line for line in leader.lines("watches broken") if KIND in line["kinds"]],
            timeout_s=ANSWER_S,
            what="the line about it",
        )
        assert len(told) == 1, "once, not at every try"
        assert "forbidden" in told[0]["error"] or len(told[0]["kinds"]) > 1
    finally:
        stage.api.merge_patch(ROLE, {"rules": rules})
    await_ready(leader)
    wait_until(
        lambda: any(KIND in line["kinds"] for line in leader.lines("watches live again")),
        timeout_s=ANSWER_S,
        what="the line about its end",
    )


def await_right(stage: Stage, answer: str) -> None:
    words = ("auth", "can-i", "watch", f"{KIND}.remediator.dev", "--as", USER)
    wait_until(
        lambda: stage.cluster.kubectl(*words, check=False).stdout.strip() == answer,
        timeout_s=ANSWER_S,
        what=f"the API server to say {answer}",
    )


@pytest.mark.timeout(240)
def test_every_request_in_the_audit_log_is_one_of_ours(pair: Pair) -> None:
    """Reads, watches, reviews, the Lease and a whole run: the server's own record names us in each."""
    stage = pair.stage
    await_ready(pair.leader)
    await_ready(pair.standby)
    stage.exporters.inject_xid(BAD, 5, 79)
    stage.wait_run(BAD, "Returned", timeout_s=120)

    # Who only asks in our name, as `kubectl auth can-i --as` does, is somebody else.
    records = [record for record in stage.audit.since() if record.user.username == USER]
    ids = {record.audit_id for record in records}
    ours = audit_ids(pair.leader, 2 * len(ids) + 1_000) | audit_ids(pair.standby, 2 * len(ids) + 1_000)
    assert sorted({record.user_agent for record in records if not AGENT.fullmatch(record.user_agent)}) == []
    assert [(each.verb, each.request_uri) for each in records if each.audit_id not in ours] == []
    verbs = {each.verb for each in records}
    assert {"get", "list", "watch", "create", "update", "patch"} <= verbs, "the run did something of each"
    assert {True, False} == {"(standby)" in each.user_agent for each in records}
    assert any("run=" in each.user_agent and each.object_ref.resource == "nodes" for each in records)
    assert any("(term=" in each.user_agent and each.object_ref.resource == "leases" for each in records)
