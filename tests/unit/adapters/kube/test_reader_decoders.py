"""What the reader and the reflectors share: selectors as query text, and decoders of our kinds."""

from __future__ import annotations

import msgspec
import pytest

from remediator.adapters.kube.reader import kind_decoder, policy_decoder, selector_text
from remediator.adapters.kube.wire import Change
from remediator.model.meta import LabelRequirement, LabelSelector
from remediator.model.remediation import Remediation
from remediator.ports import PolicyObject
from tests.unit.adapters.kube.scripted import a_bookmark, a_page, an_event

POLICY = {
    "apiVersion": "remediator.dev/v1alpha1",
    "kind": "RemediationPolicy",
    "metadata": {"name": "cluster", "resourceVersion": "7", "managedFields": [{"manager": "x"}]},
    "spec": {"maxMode": "Enforce", "future": {"key": 1}},
}


@pytest.mark.parametrize(
    ("selector", "text"),
    [
        (LabelSelector(), ""),
        (LabelSelector(match_labels={"b": "2", "a": "1"}), "a=1,b=2"),
        (LabelSelector(match_labels={"a": ""}), "a="),
        (
            LabelSelector(
                match_labels={"a": "1"},
                match_expressions=(
                    LabelRequirement(key="k", operator="In", values=("y", "x")),
                    LabelRequirement(key="l", operator="NotIn", values=("z",)),
                    LabelRequirement(key="m", operator="Exists"),
                    LabelRequirement(key="n", operator="DoesNotExist"),
                ),
            ),
            "a=1,k in (x,y),l notin (z),m,!n",
        ),
    ],
    ids=["empty", "labels", "no-value", "all"],
)
def test_selector_text(selector, text):
    """The query's grammar; the contract suite asks a real server whether it agrees."""
    assert selector_text(selector) == text


def test_policy_decoder_keeps_bytes_from_lists_and_from_watches():
    """A PUT may be built from either."""
    decoder = policy_decoder()
    listed = decoder.listed(decoder.page(a_page(9, POLICY).body).items[0])
    watched = decoder.event(an_event("MODIFIED", POLICY))

    for change in (listed, watched):
        assert isinstance(change, Change)
        assert isinstance(change.view, PolicyObject)
        assert msgspec.json.decode(change.view.raw) == POLICY
        assert change.view.policy.metadata.name == change.key == "cluster"
    bad = decoder.event(an_event("MODIFIED", {**POLICY, "spec": {"maxMode": "Sometimes"}}))
    assert isinstance(bad, Change)
    assert bad.view is None
    assert "maxMode" in bad.problem


def test_kind_decoder_gives_the_whole_object():
    """What a run wrote must come back as it was, and one odd record must not stop the others."""
    spec = {
        "machine": "m",
        "node": {"name": "n1", "uid": "u"},
        "trigger": "Fault",
        "mode": "Enforce",
        "faultClass": "gpu-lost",
        "severity": "Hard",
        "playbook": {"name": "p", "text": "{}"},
    }
    decoder = kind_decoder(Remediation)
    change = decoder.event(
        an_event("ADDED", {"metadata": {"name": "m-1", "resourceVersion": "3"}, "spec": spec})
    )
    odd = decoder.event(an_event("ADDED", {"metadata": {"name": "m-2", "resourceVersion": "4"}, "spec": {}}))

    assert isinstance(change, Change)
    assert change.view is not None
    assert change.view.spec.fault_class == "gpu-lost"
    assert isinstance(odd, Change)
    assert (odd.key, odd.view) == ("m-2", None)
    assert not isinstance(decoder.event(a_bookmark(5)), Change)
