"""What lives around the server does alike on the simulated cluster and on Kubernetes' own components.

A story in here demands what was seen on the real ones. Times are bounds: how fast a part is differs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from tests.contract.both import BOTH, Json
from tests.contract.ground import HOST, Ground, Play, playing
from tests.contract.live import NODES

pytestmark = pytest.mark.timeout(240)

UNREACHABLE = "node.kubernetes.io/unreachable"
UNSCHEDULABLE = "node.kubernetes.io/unschedulable"
OUT_OF_SERVICE = {"key": "node.kubernetes.io/out-of-service", "value": "test", "effect": "NoExecute"}
FENCE = {"key": "example.com/fence", "value": "x", "effect": "NoSchedule"}


@pytest.fixture(params=BOTH)
def play(request: pytest.FixtureRequest) -> Iterator[Play]:
    """The same story on either cluster."""
    with playing(request) as found:
        yield found


def pod_spec(node: str = "", *, gpus: int = 0, tolerations: Sequence[Json] = (), **more: Any) -> Json:
    """Only for the node of this name, where one is given."""
    container: Json = {"name": "c", "image": "none"}
    if gpus:
        container["resources"] = {"limits": {"nvidia.com/gpu": str(gpus)}}
    spec = {"containers": [container], "terminationGracePeriodSeconds": 1, "tolerations": [*tolerations]}
    return spec | ({"nodeSelector": {HOST: node}} if node else {}) | more


def a_pod(name: str, node: str, **more: Any) -> Json:
    meta = {"name": name, "labels": {"app": "test"}}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": pod_spec(node, **more)}


def soon(seconds: int) -> list[Json]:
    """A pod that stays so long on a node that nobody hears."""
    keys = (UNREACHABLE, "node.kubernetes.io/not-ready")
    return [
        {"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": seconds}
        for key in keys
    ]


def a_maker(kind: str, name: str, spec: Json, pod: Json) -> Json:
    version = "batch/v1" if kind == "Job" else "apps/v1"
    selector = {} if kind == "Job" else {"selector": {"matchLabels": {"app": "test"}}}
    template = {"metadata": {"labels": {"app": "test"}}, "spec": pod}
    return {
        "apiVersion": version,
        "kind": kind,
        "metadata": {"name": name},
        "spec": {**spec, **selector, "template": template},
    }


async def taint(ground: Ground, node: str, *taints: Json) -> None:
    """These, and those of node lifecycle that it has."""
    found = await ground.node(node)
    rows = found["spec"].get("taints") or ()
    own = [each for each in rows if each["key"].startswith("node.kubernetes.io/") and each != OUT_OF_SERVICE]
    body = {
        "metadata": {"resourceVersion": found["metadata"]["resourceVersion"]},
        "spec": {"taints": [*own, *taints]},
    }
    done = await ground.client.patch(f"{NODES}/{node}", body)
    assert done.code == 200, done.body


async def pending(ground: Ground, name: str) -> bool:
    pod = await ground.pod(name)
    return pod is not None and not pod["spec"].get("nodeName")


def test_scheduler_keeps_off_taints_and_cordons(play: Play) -> None:
    """Who tolerates a taint is let in; a cordon keeps everybody off who does not tolerate it, too."""

    async def story(ground: Ground) -> None:
        first, second = ground.nodes
        await taint(ground, first, FENCE)
        await ground.client.patch(f"{NODES}/{second}", {"spec": {"unschedulable": True}})
        tolerant = [{"key": FENCE["key"], "operator": "Exists"}]
        await ground.make(ground.pods, a_pod("stranger", first))
        await ground.make(ground.pods, a_pod("guest", first, tolerations=tolerant))
        await ground.make(ground.pods, a_pod("late", second))
        assert (await ground.running("guest"))["spec"]["nodeName"] == first

        async def both_wait() -> bool:
            return await pending(ground, "stranger") and await pending(ground, "late")

        await ground.stays(both_wait)
        await taint(ground, first)
        await ground.client.patch(f"{NODES}/{second}", {"spec": {"unschedulable": None}})
        await ground.running("stranger")
        await ground.running("late")

    play(story)


def test_scheduler_counts_gpus(play: Play) -> None:
    """What does not fit waits, and goes as soon as there is room."""

    async def story(ground: Ground) -> None:
        node = ground.nodes[0]
        await ground.make(ground.pods, a_pod("first", node, gpus=6))
        await ground.running("first")
        await ground.make(ground.pods, a_pod("large", node, gpus=4))
        await ground.make(ground.pods, a_pod("small", node, gpus=2))
        await ground.running("small")

        async def waits() -> bool:
            return await pending(ground, "large")

        await ground.stays(waits)
        await ground.client.delete(f"{ground.pods}/first")
        await ground.running("large")

    play(story)


def test_cordon_is_a_taint_too(play: Play) -> None:
    async def story(ground: Ground) -> None:
        path = f"{NODES}/{ground.nodes[0]}"

        async def keys() -> set[tuple[str, str]]:
            node = await ground.node(ground.nodes[0])
            return {(each["key"], each["effect"]) for each in node["spec"].get("taints") or ()}

        async def tainted() -> bool:
            return (UNSCHEDULABLE, "NoSchedule") in await keys()

        async def clean() -> bool:
            return not await keys()

        await ground.client.patch(path, {"spec": {"unschedulable": True}})
        await ground.until(tainted, "the taint of a cordon")
        await ground.client.patch(path, {"spec": {"unschedulable": None}})
        await ground.until(clean, "its end")

    play(story)


def test_deployment_keeps_its_number(play: Play) -> None:
    """A pod that is deleted has a successor under another name."""

    async def story(ground: Ground) -> None:
        await ground.make(
            ground.collection("deployments"),
            a_maker("Deployment", "web", {"replicas": 2}, pod_spec(ground.nodes[0])),
        )

        async def two() -> list[Json] | None:
            pods = await ground.all_pods()
            alive = [each for each in pods if each["status"].get("phase") == "Running"]
            return alive if len(alive) == len(pods) == 2 else None

        before = await ground.until(two, "two pods")
        gone = before[0]["metadata"]["name"]
        await ground.client.delete(f"{ground.pods}/{gone}")
        await ground.gone(gone)
        after = await ground.until(two, "two pods again")
        assert gone not in {each["metadata"]["name"] for each in after}
        owner = after[0]["metadata"]["ownerReferences"][0]
        assert (owner["kind"], owner["controller"]) == ("ReplicaSet", True)

    play(story)


def test_stateful_pod_waits_for_its_predecessor(play: Play) -> None:
    """The same name, and never two of it: while the old one is terminating there is no new one."""

    async def story(ground: Ground) -> None:
        node = ground.nodes[0]
        spec = {"replicas": 1, "serviceName": "db"}
        await ground.make(
            ground.collection("statefulsets"),
            a_maker("StatefulSet", "db", spec, pod_spec(node, tolerations=soon(300))),
        )
        old = (await ground.running("db-0"))["metadata"]["uid"]
        ground.silence(node)
        await ground.client.delete(f"{ground.pods}/db-0")

        async def still_there() -> bool:
            pod = await ground.pod("db-0")
            meta = pod["metadata"] if pod is not None else {}
            return bool(meta.get("uid") == old and "deletionTimestamp" in meta)

        await ground.stays(still_there)
        ground.wake(node)

        async def another() -> bool:
            pod = await ground.pod("db-0")
            return pod is not None and pod["metadata"]["uid"] != old

        await ground.until(another, "its successor")
        await ground.running("db-0")

    play(story)


def test_daemon_set_has_a_pod_on_each_node_also_behind_a_cordon(play: Play) -> None:
    async def story(ground: Ground) -> None:
        await ground.client.patch(f"{NODES}/{ground.nodes[0]}", {"spec": {"unschedulable": True}})
        await ground.make(
            ground.collection("daemonsets"),
            a_maker("DaemonSet", "agent", {}, pod_spec()),
        )

        async def homes() -> set[str]:
            return {each["spec"].get("nodeName", "") for each in await ground.all_pods()}

        async def everywhere() -> bool:
            return set(ground.nodes) <= await homes()

        await ground.until(everywhere, "a pod on each node")
        first = next(each for each in await ground.all_pods() if each["spec"]["nodeName"] == ground.nodes[0])
        owner = first["metadata"]["ownerReferences"][0]
        assert (owner["kind"], owner["controller"]) == ("DaemonSet", True)
        await ground.client.delete(f"{ground.pods}/{first['metadata']['name']}")
        await ground.gone(first["metadata"]["name"])
        await ground.until(everywhere, "its successor")

    play(story)


def test_job_past_its_deadline_has_failed(play: Play) -> None:
    async def story(ground: Ground) -> None:
        pod = pod_spec(ground.nodes[0], restartPolicy="Never")
        job = a_maker("Job", "slow", {"activeDeadlineSeconds": 2}, pod)
        path = ground.collection("jobs", "batch")
        await ground.make(path, job)

        async def failed() -> Json | None:
            status = (await ground.client.get(f"{path}/slow")).body.get("status") or {}
            rows = status.get("conditions") or ()
            return next((row for row in rows if (row["type"], row["status"]) == ("Failed", "True")), None)

        row = await ground.until(failed, "its end")
        assert row["reason"] == "DeadlineExceeded"

    play(story)


def test_budget_refuses_an_eviction_until_there_is_room(play: Play) -> None:
    """429 while the budget has nothing to give; the pod stays."""

    async def story(ground: Ground) -> None:
        budget = {
            "apiVersion": "policy/v1",
            "kind": "PodDisruptionBudget",
            "metadata": {"name": "all"},
            "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "test"}}},
        }
        budgets = ground.collection("poddisruptionbudgets", "policy")
        await ground.make(budgets, budget)
        deployment = a_maker("Deployment", "web", {"replicas": 1}, pod_spec(ground.nodes[0]))
        await ground.make(ground.collection("deployments"), deployment)

        async def counted() -> bool:
            status = (await ground.client.get(f"{budgets}/all")).body.get("status") or {}
            return bool(status.get("currentHealthy") == 1 and status.get("observedGeneration"))

        await ground.until(counted, "the budget to count its pod")
        (pod,) = await ground.all_pods()
        name = pod["metadata"]["name"]
        eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}}
        refused = await ground.client.post(f"{ground.pods}/{name}/eviction", eviction)
        assert (refused.code, refused.body["reason"]) == (429, "TooManyRequests")
        await ground.client.patch(f"{ground.collection('deployments')}/web", {"spec": {"replicas": 2}})

        async def taken() -> bool:
            sent = await ground.client.post(f"{ground.pods}/{name}/eviction", eviction)
            return sent.code == 201

        await ground.until(taken, "room in the budget")
        await ground.gone(name)

    play(story)


def test_silent_node_is_unknown_and_loses_its_pods_when_they_have_waited(play: Play) -> None:
    """Terminating is as far as it gets: nobody is there to end them, until the node is out of service."""

    async def story(ground: Ground) -> None:
        node = ground.nodes[0]
        await ground.make(ground.pods, a_pod("short", node, tolerations=soon(1)))
        await ground.make(ground.pods, a_pod("long", node, tolerations=soon(3000)))
        await ground.running("short")
        await ground.running("long")
        ground.silence(node)

        async def unknown() -> bool:
            found = await ground.node(node)
            ready = next(each for each in found["status"]["conditions"] if each["type"] == "Ready")
            taints = found["spec"].get("taints") or ()
            effects = {each["effect"] for each in taints if each["key"] == UNREACHABLE}
            return bool(ready["status"] == "Unknown" and effects == {"NoSchedule", "NoExecute"})

        async def terminating() -> bool:
            pod = await ground.pod("short")
            return pod is not None and "deletionTimestamp" in pod["metadata"]

        await ground.until(unknown, "the node to be called Unknown")
        await ground.until(terminating, "the pod of little patience to be deleted")
        patient = await ground.pod("long")
        assert patient is not None
        assert "deletionTimestamp" not in patient["metadata"]
        await ground.stays(terminating)
        await taint(ground, node, OUT_OF_SERVICE)
        await ground.gone("short")
        await ground.gone("long")
        await taint(ground, node)
        ground.wake(node)

    play(story)


def test_no_execute_ends_whoever_does_not_tolerate_it(play: Play) -> None:
    async def story(ground: Ground) -> None:
        node = ground.nodes[0]
        fence = FENCE | {"effect": "NoExecute"}
        tolerant = [{"key": FENCE["key"], "operator": "Exists"}]
        await ground.make(ground.pods, a_pod("goes", node))
        await ground.make(ground.pods, a_pod("stays", node, tolerations=tolerant))
        await ground.running("goes")
        await ground.running("stays")
        await taint(ground, node, fence)
        await ground.gone("goes")

        async def there() -> bool:
            pod = await ground.pod("stays")
            return pod is not None and "deletionTimestamp" not in pod["metadata"]

        await ground.stays(there)

    play(story)


def test_pods_of_a_node_that_is_gone_go_too(play: Play) -> None:
    async def story(ground: Ground) -> None:
        node = ground.nodes[0]
        await ground.make(ground.pods, a_pod("orphan", node))
        await ground.running("orphan")
        await ground.client.delete(f"{NODES}/{node}")
        await ground.gone("orphan")

    play(story)


@pytest.mark.parametrize("policy", ["Background", "Orphan", "Foreground"])
def test_what_an_object_owned_goes_as_is_asked(play: Play, policy: str) -> None:
    async def story(ground: Ground) -> None:
        maps = f"/api/v1/namespaces/{ground.namespace}/configmaps"
        head = {"apiVersion": "v1", "kind": "ConfigMap"}
        owner = await ground.make(maps, head | {"metadata": {"name": "owner"}})
        reference = head | {"name": "owner", "uid": owner["metadata"]["uid"], "blockOwnerDeletion": True}
        meta = {"name": "owned", "ownerReferences": [reference]}
        await ground.make(maps, head | {"metadata": meta})
        await ground.client.delete(f"{maps}/owner", {"propagationPolicy": policy})

        async def owner_gone() -> bool:
            return (await ground.client.get(f"{maps}/owner")).code == 404

        async def owned_gone() -> bool:
            return (await ground.client.get(f"{maps}/owned")).code == 404

        async def let_go() -> bool:
            found = await ground.client.get(f"{maps}/owned")
            return found.code == 200 and not found.meta.get("ownerReferences")

        await ground.until(owner_gone, "the end of the owner")
        await ground.until(let_go if policy == "Orphan" else owned_gone, "what is owned to follow")
        await ground.client.delete(f"{maps}/owned")

    play(story)
