"""What many Nodes say alike is held once, and the table that does so is bounded."""

from __future__ import annotations

from remediator.adapters.kube.projection import SHARED_CHARS_MAX, SHARED_MAX, node_decoder
from remediator.adapters.kube.wire import Change
from tests.unit.adapters.kube.scripted import a_node, an_event

PRODUCT = "a product with a long name"


def views_of(*bodies):
    """The views of these Nodes, by one decoder, in order."""
    decoder = node_decoder(gpu_resource="nvidia.com/gpu")
    views = []
    for body in bodies:
        found = decoder.event(an_event("ADDED", body))
        assert isinstance(found, Change)
        assert found.view is not None
        views.append(found.view)
    return views


def a_labelled(name: str, version: int, *, label: str = PRODUCT, message: str = "all is well"):
    conditions = [{"type": "Ready", "status": "True", "message": message}]
    return a_node(name, version, labels={"product": label}, conditions=conditions)


def test_nodes_share_the_texts_they_have_in_common():
    """A thousand nodes of 20 KB would hold 5 MB of copies."""
    first, second = views_of(a_labelled("node-1", 1), a_labelled("node-2", 2))

    assert first.labels["product"] is second.labels["product"]
    assert first.conditions[0].message is second.conditions[0].message


def test_texts_are_what_the_server_sent_when_the_table_is_full():
    """The bound costs memory, never truth."""
    bodies = [
        a_labelled(f"node-{number}", number + 1, label=f"v{number}") for number in range(SHARED_MAX + 2)
    ]

    views = views_of(*bodies)

    assert [view.labels["product"] for view in views] == [f"v{number}" for number in range(SHARED_MAX + 2)]


def test_long_texts_are_not_kept_by_the_table():
    """A message may be a whole report; sixteen thousand of them must not stay for ever."""
    long = "x" * (SHARED_CHARS_MAX + 1)
    first, second = views_of(a_labelled("node-1", 1, message=long), a_labelled("node-2", 2, message=long))

    assert first.conditions[0].message == second.conditions[0].message == long
    assert first.conditions[0].message is not second.conditions[0].message
