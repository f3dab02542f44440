"""The cache of one kind: what it calls a change, and when it calls a write seen."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from remediator.adapters.kube.store import Store, node_changed, object_changed, raw_object_changed
from remediator.adapters.kube.wire import RawObject
from remediator.model.meta import ObjectMeta
from remediator.model.policy import RemediationPolicy
from remediator.model.views import NodeView
from tests.unit.adapters.kube.manual_clock import ManualClock


def a_view(name: str = "a", version: str = "1", *, cordoned: bool = False) -> NodeView:
    return NodeView(name=name, uid="u", resource_version=version, unschedulable=cordoned)


def a_store() -> Store[NodeView]:
    return Store(clock=ManualClock(), changed=node_changed)


def synced(store: Store[NodeView], version: int = 1, *names: str) -> Store[NodeView]:
    store.tell(store.replace({name: a_view(name) for name in names}, dict.fromkeys(names, 1), {}, version))
    return store


def test_put_tells_nobody_of_a_heartbeat_but_keeps_its_version():
    """Kubelets write every node every few minutes; a stale version would make each patch a 409."""
    store, told = a_store(), []
    store.put("a", 1, a_view(version="1"))
    store.subscribe(lambda *call: told.append(call))

    store.put("a", 2, a_view(version="2"))

    assert told == []
    assert store.get("a") == a_view(version="2")
    assert store.version_of("a") == store.version == 2


@pytest.mark.parametrize(
    "after",
    [
        msgspec.structs.replace(a_view(), **{name: value})
        for name, value in {
            "uid": "other",
            "labels": {"a": "b"},
            "unschedulable": True,
            "taints_raw": b"[{}]",
            "gpus": 8,
            "boot_id": "other",
        }.items()
    ],
)
def test_node_changed_sees_every_other_field(after):
    """A change that is taken for a heartbeat is a fault nobody hears of."""
    assert node_changed(a_view(), after)


def test_object_changed_ignores_only_the_version():
    """Our own status writes of nothing new must not wake a pass; a new generation must."""
    policy = RemediationPolicy(metadata=ObjectMeta(name="cluster", resource_version="1", generation=1))
    later = msgspec.structs.replace(policy.metadata, resource_version="2")
    edited = msgspec.structs.replace(later, generation=2)

    assert not object_changed(policy, msgspec.structs.replace(policy, metadata=later))
    assert object_changed(policy, msgspec.structs.replace(policy, metadata=edited))
    assert not raw_object_changed(
        RawObject(policy, b"1"), RawObject(msgspec.structs.replace(policy, metadata=later), b"2")
    )
    assert raw_object_changed(
        RawObject(policy, b"1"), RawObject(msgspec.structs.replace(policy, metadata=edited), b"1")
    )


def test_replace_returns_differences_in_order_of_key():
    """Listeners and logs must not depend on the order of a dictionary."""
    store = synced(a_store(), 1, "gone", "same", "other")
    views = {
        "same": a_view("same", "9"),
        "other": a_view("other", "9", cordoned=True),
        "born": a_view("born"),
    }

    differences = store.replace(views, dict.fromkeys(views, 9), {}, 9)

    assert [(key, before is None, after is None) for key, before, after in differences] == [
        ("born", True, False),
        ("gone", False, True),
        ("other", False, False),
    ]


def test_replace_keeps_the_last_good_view_of_an_object_that_no_longer_decodes():
    """One bad object must neither vanish nor be taken for deleted."""
    store = synced(a_store(), 1, "a", "b")

    differences = store.replace({"a": a_view()}, {"a": 1, "b": 5}, {"b": "spec.mode: wrong"}, 5)

    assert differences == []
    assert store.get("b") == a_view("b")
    assert store.undecodable == {"b": "spec.mode: wrong"}


def test_listeners_see_the_new_state_already():
    """A listener that looks at the store must not see what was before its own call."""
    store, seen = a_store(), []
    store.subscribe(lambda key, before, after: seen.append((key, store.get(key) is after)))

    store.put("a", 1, a_view())
    store.remove("a", 2)

    assert seen == [("a", True), ("a", True)]


def test_observed_compares_numbers_and_not_text():
    """As text, 9 is after 10: a pass would wait for ever for its own write."""
    store = synced(a_store(), 10, "a")

    assert store.observed("9")
    assert store.observed("10")
    assert not store.observed("11")


def test_observed_is_false_while_the_state_is_unknown():
    """Before the first list, and while the server refuses, nothing was seen."""
    store = a_store()
    store.prove(10)

    assert not store.observed("5")


@pytest.mark.asyncio
async def test_wait_for_ends_with_the_event_or_a_bookmark_that_reaches_it():
    """Read your own writes: the next step decides on a cache that shows the last one."""
    clock = ManualClock()
    store: Store[NodeView] = Store(clock=clock)
    synced(store, 1, "a")
    waiting = asyncio.create_task(store.wait_for("7", 5.0))
    await clock.settle()
    store.put("a", 6, a_view(version="6"))
    await clock.settle()

    assert not waiting.done()

    store.prove(8)

    assert await waiting


@pytest.mark.asyncio
async def test_wait_for_gives_up_at_its_time_limit():
    """A lost watch must not hold a pass for ever."""
    clock = ManualClock()
    store: Store[NodeView] = Store(clock=clock)
    synced(store, 1, "a")
    waiting = asyncio.create_task(store.wait_for("7", 5.0))

    await clock.advance(4.9)
    assert not waiting.done()
    await clock.advance(0.2)
    assert waiting.done()
    assert not waiting.result()


def test_age_counts_from_the_last_proof():
    """Old knowledge is unknown; the age is what decides that."""
    store = a_store()

    assert store.age_s() is None

    store.prove(1)

    assert store.age_s() == 0.0
