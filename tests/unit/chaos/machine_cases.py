"""Traces about evidence, people, storms and reboots: what breaks the rules about them, and what does not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from remediator.chaos.profile import Fault, Reboots, Storm
from tests.unit.chaos.trace import FENCE, NODE, POOL, THEM, US, Trace, a_node, merged

Play = Callable[[Trace], None]

#: What these rules need of a profile, beside that of remediator.
FIELDS: dict[str, Any] = {
    "faults": (Fault(condition="KernelDeadlock"),),
    "reboots": Reboots(resource="jobs", node="spec.node", attempt="spec.attempt"),
    "storm": Storm(most=2, seconds=60),
    "opt_out": "remediator.dev/opt-out",
    "veto_seconds": 3600.0,
    "read_only": True,
}


def shows(trace: Trace, status: str, *taints: dict[str, str], uid: str = "u-1", **labels: Any) -> None:
    """The Node registers with this status of its KernelDeadlock; empty: without."""
    conditions = [{"type": "KernelDeadlock", "status": status}] if status else []
    left = merged(a_node(*taints, **labels), {"metadata": {"uid": uid}, "status": {"conditions": conditions}})
    trace.write("create", "nodes", NODE, user="kubelet", left=left)


def says(trace: Trace, status: str) -> None:
    """A problem detector writes the status of the Node."""
    conditions = {"status": {"conditions": [{"type": "KernelDeadlock", "status": status}]}}
    left = merged(a_node(POOL), conditions)
    trace.write("patch", "nodes", NODE, user="npd", subresource="status", sent=conditions, left=left)


def fence(trace: Trace, name: str = NODE, uid: str = "u-1", status: str = "", **more: Any) -> None:
    """``status`` is that of the KernelDeadlock at this moment, as the server answers."""
    sent = {"metadata": {"resourceVersion": "1"}, "spec": {"taints": [FENCE]}}
    conditions = [{"type": "KernelDeadlock", "status": status}] if status else []
    shown = {"metadata": {"uid": uid}, "status": {"conditions": conditions}}
    left = merged(a_node(POOL, FENCE, cordoned=True), shown)
    trace.write("patch", "nodes", name, sent=sent, left=left, **more)


def fence_what_is_well(trace: Trace) -> None:
    shows(trace, "False", POOL)
    fence(trace)


def fence_what_nobody_knows(trace: Trace) -> None:
    shows(trace, "Unknown", POOL)
    fence(trace)


def fence_what_has_recovered(trace: Trace) -> None:
    shows(trace, "True", POOL)
    says(trace, "False")
    fence(trace)


def begin(trace: Trace, *, name: str = "m-1", trigger: str = "Fault") -> None:
    """Work is recorded, with its reason."""
    reason = {"source": "condition", "key": "KernelDeadlock", "text": "KernelDeadlock=True: Hung: a task"}
    left = {"kind": "Remediation", "spec": {"trigger": trigger, "evidence": [reason]}}
    trace.write("create", "remediations", name, sent=left, left=left)


def fence_for_what_is_over(trace: Trace) -> None:
    shows(trace, "True", POOL)
    begin(trace)
    says(trace, "False")
    fence(trace, status="False")


def fence_for_what_was_over_already(trace: Trace) -> None:
    """The cache was behind: the record tells of a condition that the server did not have any more."""
    shows(trace, "False", POOL)
    begin(trace)
    fence(trace, status="False")


def fence_for_what_stands(trace: Trace) -> None:
    shows(trace, "True", POOL)
    begin(trace)
    fence(trace, status="True")


def fence_what_came_anew(trace: Trace) -> None:
    """Its Node came anew while its work was open: what was seen of the old is not yet said of the new."""
    fence_for_what_stands(trace)
    shows(trace, "", POOL, uid="u-2")
    begin(trace, name="m-2", trigger="Reappeared")
    fence(trace, uid="u-2", run="m-2")


def fence_for_what_came_without_a_body(trace: Trace) -> None:
    """The detector's write of the status stands in the log at level Metadata, as on a real server."""
    shows(trace, "False", POOL)
    begin(trace)
    fence(trace, status="True")


def fence_what_is_faulty(trace: Trace) -> None:
    """It recovers behind the fence, and what is written then is no new fence."""
    shows(trace, "", POOL)
    says(trace, "True")
    fence(trace)
    says(trace, "False")
    trace.write("patch", "nodes", NODE, user="npd", left=a_node(POOL, FENCE, cordoned=True))
    fence(trace)


def opens(trace: Trace, uid: str) -> None:
    left = {"kind": "Remediation", "spec": {"node": {"name": NODE, "uid": uid}}}
    trace.write("create", "remediations", "m-1", left=left)


def write_on_another_machine(trace: Trace) -> None:
    opens(trace, "u-1")
    shows(trace, "True", POOL, uid="u-2")
    fence(trace, uid="u-2")


def write_on_the_spare(trace: Trace) -> None:
    """What the work gives to a spare goes to another Node by its nature."""
    opens(trace, "u-1")
    fence(trace, name="spare-1", uid="u-9")
    fence(trace)


def fence_what_opted_out(trace: Trace) -> None:
    shows(trace, "True", POOL, **{"remediator.dev/opt-out": "true"})
    fence(trace)


def fence_before_it_opts_out(trace: Trace) -> None:
    shows(trace, "True", POOL)
    fence(trace)
    out = {"remediator.dev/opt-out": "true"}
    trace.write("patch", "nodes", NODE, user=THEM, left=a_node(POOL, FENCE, cordoned=True, **out))


def unfence(trace: Trace, user: str, *taints: dict[str, str], cordoned: bool = False) -> None:
    left = merged(a_node(POOL, *taints, cordoned=cordoned), {"metadata": {"uid": "u-1"}})
    trace.write("patch", "nodes", NODE, user=user, sent={}, left=left)


def fence_again_after_a_no(trace: Trace) -> None:
    shows(trace, "True", POOL)
    fence(trace)
    unfence(trace, THEM, cordoned=True)
    fence(trace)


def fence_again_after_an_uncordon(trace: Trace) -> None:
    """Who uncordons says no as well, though the taint stands."""
    shows(trace, "True", POOL)
    fence(trace)
    unfence(trace, THEM, FENCE)
    unfence(trace, US)
    fence(trace)


def fence_another_machine_after_a_no(trace: Trace) -> None:
    """The no was about a machine; the next one of that name is another."""
    shows(trace, "True", POOL)
    fence(trace)
    unfence(trace, THEM)
    shows(trace, "True", POOL, uid="u-2")
    fence(trace, uid="u-2")


def fence_again_after_the_hold(trace: Trace) -> None:
    shows(trace, "True", POOL)
    fence(trace)
    unfence(trace, THEM)
    fence(trace, after_s=2_000.0)


def fence_again_by_ourselves(trace: Trace) -> None:
    shows(trace, "True", POOL)
    fence(trace)
    trace.patch(POOL, cordoned=False)
    fence(trace)


def renew_only(trace: Trace) -> None:
    """What was tried without effect has written nothing."""
    trace.write("list", "nodes", "")
    trace.write("patch", "nodes", NODE, sent={}, left=a_node(), code=403)
    trace.write("patch", "nodes", NODE, sent={}, left=a_node(), dry_run=True)


def storm_of(trace: Trace, names: tuple[str, ...], after_s: float) -> None:
    for name in names:
        trace.write("create", "nodes", name, user="kubelet", left=a_node(POOL), after_s=after_s)
        fence(trace, name=name, uid=name, after_s=after_s)


def fence_three_at_once(trace: Trace) -> None:
    storm_of(trace, ("gpu-1", "gpu-2", "gpu-3"), 1.0)


def fence_three_in_time(trace: Trace) -> None:
    storm_of(trace, ("gpu-1", "gpu-2", "gpu-3"), 15.0)


def reboot(trace: Trace, attempt: str, *, code: int = 201) -> None:
    left = {"kind": "Job", "spec": {"node": NODE, "attempt": attempt}}
    trace.write("create", "jobs", f"job-{len(trace.lines)}", namespace="repairs", left=left, code=code)


def reboot_without_a_fence(trace: Trace) -> None:
    shows(trace, "True", POOL)
    reboot(trace, "1")


def reboot_behind_the_fence(trace: Trace) -> None:
    shows(trace, "True", POOL)
    fence(trace)
    reboot(trace, "1")


def reboot_twice(trace: Trace) -> None:
    reboot_behind_the_fence(trace)
    reboot(trace, "1")


def reboot_once_more_in_another_attempt(trace: Trace) -> None:
    """One was refused, and one is another attempt."""
    reboot_behind_the_fence(trace)
    reboot(trace, "1", code=409)
    reboot(trace, "2")


CASES: dict[str, tuple[tuple[Play, ...], tuple[Play, ...]]] = {
    "S3": (
        (fence_what_is_well, fence_what_nobody_knows, fence_what_has_recovered),
        (fence_what_is_faulty,),
    ),
    "S3b": (
        (fence_for_what_is_over, fence_for_what_was_over_already),
        (fence_for_what_stands, fence_for_what_came_without_a_body, fence_what_came_anew),
    ),
    "S4b": ((write_on_another_machine,), (write_on_the_spare,)),
    "S6": ((reboot_without_a_fence,), (reboot_behind_the_fence,)),
    "S10": ((fence_what_opted_out,), (fence_before_it_opts_out,)),
    "S11": (
        (fence_again_after_a_no, fence_again_after_an_uncordon),
        (fence_another_machine_after_a_no, fence_again_after_the_hold, fence_again_by_ourselves),
    ),
    "S21": ((reboot_without_a_fence,), (renew_only,)),
    "S25": ((reboot_twice,), (reboot_once_more_in_another_attempt,)),
    "S30": ((fence_three_at_once,), (fence_three_in_time,)),
}
