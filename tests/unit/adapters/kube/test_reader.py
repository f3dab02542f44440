"""Reads on demand: what is asked, what is made of the answers, and what counts as unknown."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from remediator.adapters.kube.reader import (
    BOUNDS,
    EVENT_LINE_CHARS_MAX,
    PDB_NAMESPACES_MAX,
    KubeReader,
)
from remediator.errors import PermanentError, TransientError
from remediator.model.keys import TOLERATES_PREEMPTION
from remediator.model.meta import LabelSelector
from remediator.ports import Lane, Reader, Response
from tests.unit.adapters.kube.manual_clock import ManualClock
from tests.unit.adapters.kube.scripted import (
    Asked,
    ScriptedTransport,
    a_page,
    json_reply,
)

pytestmark = pytest.mark.asyncio
ROOT = "/apis/remediator.dev/v1alpha1"
EVENTS = "/apis/events.k8s.io/v1/namespaces/default/events"
POLICY = {
    "apiVersion": "remediator.dev/v1alpha1",
    "kind": "RemediationPolicy",
    "metadata": {"name": "cluster", "resourceVersion": "7", "managedFields": [{"manager": "x"}]},
    "spec": {"maxMode": "Enforce", "future": {"key": 1}},
    "status": {"term": 4},
}


class Server:
    """Answers by path; what was not written down is not there."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.transport = ScriptedTransport(self.clock)
        self.transport.answer = self._answer
        self.replies: dict[str, Response | Exception] = {}
        self.reader = KubeReader(
            self.transport,
            clock=self.clock,
            gpu_resource="nvidia.com/gpu",
            pod_annotations=frozenset(("keep",)),
        )

    @property
    def asked(self) -> list[Asked]:
        return self.transport.asked

    def _answer(self, asked: Asked) -> Response | Exception:
        return self.replies.get(asked.path) or absent(asked.path.rsplit("/", 1)[-1])


def absent(name: str) -> Response:
    details = {"name": name, "group": "x", "kind": "things"}
    return json_reply(
        404, {"kind": "Status", "reason": "NotFound", "message": f'"{name}" not found', "details": details}
    )


def no_such_kind() -> Response:
    message = "the server could not find the requested resource"
    return json_reply(404, {"kind": "Status", "reason": "NotFound", "message": message, "details": {}})


def a_pod(name: str, namespace: str = "ml", **more: Any) -> dict[str, Any]:
    owner = more.pop("owner", "")
    metadata: dict[str, Any] = {
        "name": name,
        "namespace": namespace,
        "uid": f"uid-{name}",
        "resourceVersion": "5",
    }
    if owner:
        metadata["ownerReferences"] = [{"kind": owner, "name": "o", "uid": "u", "controller": True}]
    metadata |= more.pop("metadata", {})
    status = {"phase": more.pop("phase", "Running"), **more.pop("status", {})}
    return {"metadata": metadata, "spec": {"nodeName": "n1", **more}, "status": status}


def a_budget(name: str, namespace: str) -> dict[str, Any]:
    metadata = {"name": name, "namespace": namespace, "resourceVersion": "6"}
    return {"metadata": metadata, "status": {"disruptionsAllowed": 0}}


def budgets_path(namespace: str) -> str:
    return f"/apis/policy/v1/namespaces/{namespace}/poddisruptionbudgets"


def an_event_of(name: str, at: str, **more: Any) -> dict[str, Any]:
    uid = more.pop("uid", "uid-n1")
    return {
        "metadata": {"name": name, "namespace": "default", "resourceVersion": "5", "creationTimestamp": at},
        "regarding": {"kind": "Node", "name": "n1", "uid": uid},
        "type": "Warning",
        "reason": "XidSeen",
        "note": "Xid 79",
        **more,
    }


async def test_reader_is_what_the_port_asks_for():
    """The runtime only knows the port."""
    reader: Reader = Server().reader

    assert await reader.run_exists("x") is False


# -- pods


async def test_pods_of_asks_for_the_nodes_pods_as_of_now():
    """Any resourceVersion in the query would allow an answer from the past."""
    server = Server()
    server.replies["/api/v1/pods"] = a_page(
        9,
        a_pod("b"),
        a_pod("a", metadata={"annotations": {"keep": "1", "drop": "2"}}),
        a_pod("d", "sys", owner="DaemonSet"),
    )
    server.replies[budgets_path("ml")] = a_page(9, a_budget("two", "ml"), a_budget("one", "ml"))

    found = await server.reader.pods_of("n1")

    assert [pod.key for pod in found.pods] == ["ml/a", "ml/b", "sys/d"]
    assert dict(found.pods[0].annotations) == {"keep": "1"}
    assert [pdb.name for pdb in found.pdbs] == ["one", "two"]
    assert server.asked[0].query == {"fieldSelector": "spec.nodeName=n1", "limit": "500"}
    assert [asked.path for asked in server.asked] == ["/api/v1/pods", budgets_path("ml")]


def class_path(name: str) -> str:
    return f"/apis/scheduling.k8s.io/v1/priorityclasses/{name}"


def a_class(name: str, **annotations: str) -> Response:
    return json_reply(200, {"metadata": {"name": name, "resourceVersion": "3", "annotations": annotations}})


async def test_classes_that_tolerate_preemption_are_told_and_read_once_a_minute():
    """The mark stands on the class and not on its pods; one read a look would be one a second."""
    server = Server()
    server.replies["/api/v1/pods"] = a_page(
        9, a_pod("a", priorityClassName="gold"), a_pod("b", priorityClassName="tin"), a_pod("c")
    )
    server.replies[budgets_path("ml")] = a_page(9)
    server.replies[class_path("gold")] = a_class("gold", **{TOLERATES_PREEMPTION: "1000"})
    server.replies[class_path("tin")] = a_class("tin", other="x")

    assert (await server.reader.pods_of("n1")).tolerant == {"gold"}
    assert (await server.reader.pods_of("n1")).tolerant == {"gold"}
    paths = [asked.path for asked in server.asked]
    assert [paths.count(class_path(name)) for name in ("gold", "tin")] == [1, 1]


async def test_class_that_is_gone_protects_nobody():
    """Pods keep the name of a class that somebody deleted."""
    server = Server()
    server.replies["/api/v1/pods"] = a_page(9, a_pod("a", priorityClassName="gone"))
    server.replies[budgets_path("ml")] = a_page(9)
    server.replies[class_path("gone")] = absent("gone")

    assert (await server.reader.pods_of("n1")).tolerant == frozenset()


async def test_budgets_are_read_only_where_a_pod_could_be_evicted():
    """DaemonSet pods, mirror pods and finished ones are never evicted."""
    server = Server()
    server.replies["/api/v1/pods"] = a_page(
        9,
        a_pod("a", "daemons", owner="DaemonSet"),
        a_pod("b", "static", metadata={"annotations": {"kubernetes.io/config.mirror": "x"}}),
        a_pod("c", "done", phase="Succeeded"),
    )

    found = await server.reader.pods_of("n1")

    assert len(found.pods) == 3
    assert found.pdbs == ()
    assert len(server.asked) == 1


async def test_budgets_of_many_namespaces_are_bounded():
    """A node full of one-pod namespaces must not cost a hundred requests a look."""
    server = Server()
    namespaces = [f"team-{number:03d}" for number in range(PDB_NAMESPACES_MAX + 10)]
    server.replies["/api/v1/pods"] = a_page(9, *(a_pod("p", namespace) for namespace in reversed(namespaces)))
    server.replies |= {budgets_path(each): a_page(9, a_budget("b", each)) for each in namespaces}

    found = await server.reader.pods_of("n1")

    assert len(found.pods) == len(namespaces)
    assert [pdb.namespace for pdb in found.pdbs] == namespaces[:PDB_NAMESPACES_MAX]


async def test_node_without_pods_is_empty_and_asks_for_no_budgets():
    """Empty is an answer, and the only one that ends a drain."""
    server = Server()
    server.replies["/api/v1/pods"] = a_page(9)

    found = await server.reader.pods_of("n1")

    assert found.pods == ()
    assert found.pdbs == ()
    assert len(server.asked) == 1


async def test_pod_that_cannot_be_read_is_not_left_out():
    """Leaving it out would call a node empty on which something runs."""
    server = Server()
    server.replies["/api/v1/pods"] = a_page(9, a_pod("good"), a_pod("bad", priority="high"))

    with pytest.raises(PermanentError, match=r"pods of node n1: 1 cannot be read; ml/bad: .*priority"):
        await server.reader.pods_of("n1")


@pytest.mark.parametrize(
    ("path", "reply", "kind"),
    [
        ("/api/v1/pods", TransientError("reset"), TransientError),
        ("/api/v1/pods", json_reply(503, {}), TransientError),
        ("/api/v1/pods", json_reply(403, {}), PermanentError),
        (budgets_path("ml"), json_reply(500, {}), TransientError),
        (budgets_path("ml"), json_reply(403, {}), PermanentError),
        ("/apis/scheduling.k8s.io/v1/priorityclasses/gold", json_reply(403, {}), PermanentError),
    ],
    ids=["reset", "503", "403", "budgets-500", "budgets-403", "class-403"],
)
async def test_pods_that_cannot_be_listed_are_an_error_and_never_empty(path, reply, kind):
    """Unknown is not empty."""
    server = Server()
    server.replies["/api/v1/pods"] = a_page(9, a_pod("a", priorityClassName="gold"))
    server.replies[budgets_path("ml")] = a_page(9)
    server.replies[path] = reply

    with pytest.raises(kind):
        await server.reader.pods_of("n1")


async def test_endless_pages_are_an_error():
    """A server that never ends its list must not hold a run for ever."""
    server = Server()
    server.replies["/api/v1/pods"] = a_page(9, a_pod("a"), token="more")

    with pytest.raises(PermanentError, match="more than"):
        await server.reader.pods_of("n1")

    assert len(server.asked) == BOUNDS.pages_max


async def test_keep_changes_what_is_kept_of_a_pod():
    """The policy names the GPU resource, and may change while the controller runs."""
    server = Server()
    containers = [{"resources": {"requests": {"amd.com/gpu": "8"}}}]
    server.replies["/api/v1/pods"] = a_page(9, a_pod("a", containers=containers))
    server.replies[budgets_path("ml")] = a_page(9)
    before = await server.reader.pods_of("n1")

    server.reader.keep(gpu_resource="amd.com/gpu", pod_annotations=frozenset())

    after = await server.reader.pods_of("n1")
    assert [before.pods[0].gpus, after.pods[0].gpus] == [0, 8]


# -- events


async def test_events_are_one_line_each_oldest_first_and_only_the_newest():
    """Evidence is read from top to bottom, and what happened last matters most."""
    server = Server()
    server.replies[EVENTS] = a_page(
        9,
        an_event_of(
            "c", "2026-01-01T00:00:03Z", deprecatedCount=12, deprecatedLastTimestamp="2026-01-01T00:10:00Z"
        ),
        an_event_of("a", "2026-01-01T00:00:01Z", eventTime="2026-01-01T00:00:01.500000Z"),
        an_event_of("b", "2026-01-01T00:00:01Z", note="two\n lines\tof it", type="Normal"),
        an_event_of(
            "d",
            "2026-01-01T00:00:00Z",
            series={"count": 3, "lastObservedTime": "2026-01-01T00:00:09.000000Z"},
        ),
    )

    found = await server.reader.events_of("n1", "uid-n1", newest=3)

    assert tuple(each.line for each in found) == (
        "2026-01-01T00:00:01.500000Z Warning XidSeen Xid 79",
        "2026-01-01T00:00:09.000000Z Warning XidSeen Xid 79 x3",
        "2026-01-01T00:10:00Z Warning XidSeen Xid 79 x12",
    )
    assert found[2].at == datetime(2026, 1, 1, 0, 10, tzinfo=UTC)
    assert server.asked[0].query["fieldSelector"] == "regarding.kind=Node,regarding.name=n1"
    assert server.asked[0].lane is Lane.BULK
    everything = await server.reader.events_of("n1", "uid-n1", newest=40)
    assert everything[0].line == "2026-01-01T00:00:01Z Normal XidSeen two lines of it"
    assert await server.reader.events_of("n1", "uid-n1", newest=0) == ()


async def test_events_of_an_earlier_node_of_that_name_are_left_out():
    """They would be evidence against another machine; kubelet puts the name where the uid belongs."""
    server = Server()
    server.replies[EVENTS] = a_page(
        9,
        an_event_of("a", "2026-01-01T00:00:01Z", note="ours"),
        an_event_of("b", "2026-01-01T00:00:02Z", note="earlier", uid="uid-before"),
        an_event_of("c", "2026-01-01T00:00:03Z", note="kubelet", uid="n1"),
        an_event_of("d", "2026-01-01T00:00:04Z", note="nobody", uid=""),
    )

    found = await server.reader.events_of("n1", "uid-n1", newest=9)

    assert [each.line.rsplit(" ", 1)[1] for each in found] == ["ours", "kubelet", "nobody"]


async def test_event_lines_are_bounded_and_odd_events_skipped():
    """Evidence goes into an object with a limit; one odd Event must not hide the others."""
    server = Server()
    server.replies[EVENTS] = a_page(
        9,
        an_event_of("a", "2026-01-01T00:00:01Z", note="x" * 2_000, deprecatedCount=5),
        an_event_of("b", "2026-01-01T00:00:02Z", note=17),
        an_event_of("c", "2026-01-01T00:00:03Z", series=None, eventTime=None, deprecatedLastTimestamp=None),
    )

    found = await server.reader.events_of("n1", "uid-n1", newest=9)

    assert len(found) == 2
    assert len(found[0].line) == EVENT_LINE_CHARS_MAX
    assert found[0].line.endswith("x x5")


# -- single objects


async def test_job_is_found_by_name_or_is_none():
    """No Job of that name means: not sent, or removed."""
    server = Server()
    path = "/apis/batch/v1/namespaces/repair/jobs/m-1-fix-1"
    assert await server.reader.job("repair", "m-1-fix-1") is None
    server.replies[path] = json_reply(
        200,
        {
            "metadata": {"name": "m-1-fix-1", "namespace": "repair", "resourceVersion": "3"},
            "status": {"conditions": [{"type": "Failed", "status": "True", "message": "no such GPU"}]},
        },
    )

    found = await server.reader.job("repair", "m-1-fix-1")

    assert found is not None
    assert (found.failed, found.succeeded, found.message) == (True, False, "no such GPU")
    assert server.asked[-1].timeout_s > 0


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (no_such_kind(), PermanentError),
        (json_reply(403, {}), PermanentError),
        (json_reply(500, {}), TransientError),
        (json_reply(429, {}), TransientError),
        (TransientError("reset"), TransientError),
        (
            json_reply(200, {"metadata": {"name": "cluster", "resourceVersion": "1"}, "spec": 5}),
            PermanentError,
        ),
        (Response(200, {}, b'{"metadata":{'), TransientError),
    ],
    ids=["no-kind", "403", "500", "429", "reset", "undecodable", "half"],
)
async def test_object_that_cannot_be_read_is_an_error_and_never_absent(reply, kind):
    """Only the server's own 404 for the object proves that it is not there."""
    server = Server()
    server.replies[f"{ROOT}/remediationpolicies/cluster"] = reply

    with pytest.raises(kind):
        await server.reader.policy()


async def test_run_exists_by_the_servers_word():
    """A lost create is looked up by name before anything is done again."""
    server = Server()
    server.replies[f"{ROOT}/remediations/m-2"] = json_reply(200, {"metadata": {"name": "m-2"}})
    server.replies[f"{ROOT}/remediations/m-3"] = no_such_kind()

    assert await server.reader.run_exists("m-1") is False
    assert await server.reader.run_exists("m-2") is True
    with pytest.raises(PermanentError, match="kubectl apply -f deploy/crds"):
        await server.reader.run_exists("m-3")


async def test_policy_brings_its_own_bytes():
    """The PUT must keep keys that this version does not know."""
    server = Server()
    assert await server.reader.policy() is None
    body = msgspec.json.encode(POLICY)
    server.replies[f"{ROOT}/remediationpolicies/cluster"] = Response(200, {}, body)

    found = await server.reader.policy()

    assert found is not None
    assert found.raw == body
    assert found.policy.spec.max_mode == "Enforce"
    assert found.policy.metadata.resource_version == "7"


# -- addresses


async def test_pod_addresses_are_those_of_running_pods_by_node():
    """A pod that is going has a successor; one without address serves nothing."""
    server = Server()
    server.replies["/api/v1/namespaces/gpu/pods"] = a_page(
        9,
        a_pod("b", "gpu", status={"podIP": "10.0.0.2"}),
        a_pod("a", "gpu", status={"podIP": "10.0.0.1"}),
        a_pod("c", "gpu", nodeName="n0", status={"podIP": "10.0.0.3"}),
        a_pod("d", "gpu", phase="Pending", status={"podIP": "10.0.0.4"}),
        a_pod("e", "gpu", status={}),
        a_pod(
            "f", "gpu", status={"podIP": "10.0.0.6"}, metadata={"deletionTimestamp": "2026-01-01T00:00:00Z"}
        ),
        a_pod("g", "gpu", nodeName="", status={"podIP": "10.0.0.7"}),
    )
    selector = LabelSelector(match_labels={"app": "dcgm"})

    found = await server.reader.pod_addresses("gpu", selector)

    assert dict(found) == {"n0": ("10.0.0.3",), "n1": ("10.0.0.1", "10.0.0.2")}
    assert list(found) == ["n0", "n1"]
    assert server.asked[0].query == {"labelSelector": "app=dcgm", "limit": "500"}


async def test_pod_addresses_in_all_namespaces_when_none_is_named():
    """Some clusters run one exporter per vendor, each in its own namespace."""
    server = Server()
    server.replies["/api/v1/pods"] = a_page(9)

    assert await server.reader.pod_addresses("", LabelSelector()) == {}
    assert server.asked[0].query == {"limit": "500"}
