"""Traces about new nodes: how fast they are let in, which, and what runs there before."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from remediator.chaos.profile import Joins
from tests.unit.chaos.trace import POOL, THEM, US, Trace, a_node

Play = Callable[[Trace], None]

GATE: Final = {"key": "example.com/joining", "effect": "NoSchedule"}
#: What these rules need of a profile. A trace has a second between two records: one in ten may be let in.
FIELDS: Final[dict[str, Any]] = {
    "joins": Joins(gate=GATE["key"], count=6, seconds=60.0, burst=2, proof="PreflightPassed")
}


def seen(*taints: dict[str, str], fit: str = "True") -> dict[str, Any]:
    node = a_node(POOL, *taints)
    node["status"] = {"conditions": [{"type": "PreflightPassed", "status": fit}] if fit else []}
    return node


def born(trace: Trace, name: str, *, fit: str = "True") -> None:
    left = seen(GATE, fit=fit)
    left["metadata"]["uid"] = f"u-{name}"
    trace.write("create", "nodes", name, user="kubelet", left=left)


def let_in(trace: Trace, name: str, *, user: str = US) -> None:
    left = seen()
    left["metadata"]["uid"] = f"u-{name}"
    trace.write("patch", "nodes", name, sent={"metadata": {"resourceVersion": "1"}}, left=left, user=user)


def some_time(trace: Trace, seconds_: int) -> None:
    for _ in range(seconds_):
        trace.write("get", "pods", "x", user=THEM)


def let_three_in_at_once(trace: Trace) -> None:
    for name in ("a", "b", "c"):
        born(trace, name)
    for name in ("a", "b", "c"):
        let_in(trace, name)


def let_two_in_and_one_later(trace: Trace) -> None:
    for name in ("a", "b", "c"):
        born(trace, name)
    let_in(trace, "a")
    let_in(trace, "b")
    some_time(trace, 9)
    let_in(trace, "c")


def let_two_in_beside_a_person(trace: Trace) -> None:
    """Whom people let in is their affair."""
    for name in ("a", "b", "c"):
        born(trace, name)
    let_in(trace, "a")
    let_in(trace, "b", user=THEM)
    let_in(trace, "c")


def let_an_unproved_one_in(trace: Trace) -> None:
    born(trace, "a", fit="Unknown")
    let_in(trace, "a")


def let_a_proved_one_in(trace: Trace) -> None:
    born(trace, "a", fit="")
    trace.write("patch", "nodes", "a", subresource="status", left=seen(GATE) | {"kind": "Node"})
    let_in(trace, "a")


def bind(trace: Trace, node: str, *tolerations: dict[str, str]) -> None:
    pod = {"kind": "Pod", "metadata": {"namespace": "work"}, "spec": {"tolerations": list(tolerations)}}
    trace.write("create", "pods", "p", user="rs", namespace="work", left=pod)
    target = {"target": {"name": node}}
    trace.write("create", "pods", "p", user="s", subresource="binding", namespace="work", sent=target)


def bind_before_the_gate_opens(trace: Trace) -> None:
    born(trace, "a")
    bind(trace, "a", {"key": "nvidia.com/gpu", "operator": "Exists"})
    let_in(trace, "a")


def bind_what_tolerates_it(trace: Trace) -> None:
    born(trace, "a")
    bind(trace, "a", {"operator": "Exists"})
    let_in(trace, "a")


def bind_after_it_has_opened(trace: Trace) -> None:
    born(trace, "a")
    let_in(trace, "a")
    bind(trace, "a")


CASES: Final[dict[str, tuple[tuple[Play, ...], tuple[Play, ...]]]] = {
    "S18": ((let_three_in_at_once,), (let_two_in_and_one_later, let_two_in_beside_a_person)),
    "S19": ((bind_before_the_gate_opens,), (bind_what_tolerates_it, bind_after_it_has_opened)),
    "S19b": ((let_an_unproved_one_in,), (let_a_proved_one_in,)),
}
