"""The eviction of a pod: a deletion that PodDisruptionBudgets may refuse.

Source: k8s.io/kubernetes/pkg/registry/core/pod/storage/eviction.go.
"""

from __future__ import annotations

from typing import Final

from remediator.ports import Clock
from remediator.sim.kinds import Kind
from remediator.sim.objects import wire_time
from remediator.sim.refusal import Json, Refused, bad_request
from remediator.sim.request import Request, Route
from remediator.sim.selectors import structured
from remediator.sim.store import Entry
from remediator.sim.writes import Reply, Writes

TWO_BUDGETS: Final = (
    "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support."
)
DISRUPTED_MAX: Final = 2_000
_UNPROTECTED: Final = frozenset(("Succeeded", "Failed", "Pending"))
_SUCCESS: Final[Json] = {
    "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201,
}  # fmt: skip


class Evictions:
    """POST to ``pods/NAME/eviction``."""

    def __init__(self, writes: Writes, budgets: Kind, clock: Clock) -> None:
        self._writes = writes
        self._budgets = budgets
        self._clock = clock

    def evict(self, request: Request, route: Route, body: Json) -> Reply:
        """Delete the pod unless a budget, or a precondition, says no.

        Raises:
            Refused: 429 by a budget, 500 by two of them, 404 and 409 as a deletion.
        """
        if (body.get("metadata") or {}).get("name", route.name) != route.name:
            raise bad_request("name in URL does not match name in Eviction object")
        self._writes.admit(request, route, None, body)  # as there: before the pod is looked for
        entry, options = self._writes.entry(route), body.get("deleteOptions") or {}
        status = entry.obj["status"]
        protected = (
            status.get("phase") not in _UNPROTECTED and "deletionTimestamp" not in entry.obj["metadata"]
        )
        if protected:
            self._ask_budgets(request, route, entry)
        # IMPORTANT: as in the real server the budget was asked first, so that a pod of another uid has
        # cost it one disruption before it is refused.
        self._writes.require(
            route.kind, route.name, self._writes.entry(route), options.get("preconditions") or {}
        )
        self._writes.take_away(request, route, self._writes.entry(route), options)
        return Reply(201, _SUCCESS)

    def _ask_budgets(self, request: Request, route: Route, entry: Entry) -> None:
        shelf = self._writes.shelf(self._budgets)
        found = []
        for key in shelf.ordered():
            budget = shelf.get(key)
            if budget is None or key[0] != route.namespace:
                continue
            if structured(budget.obj["spec"].get("selector"))(entry.obj):
                found.append(budget)
        if len(found) > 1:
            raise Refused(500, "", TWO_BUDGETS)
        if found and not (_unready(entry.obj) and _lets_unready_go(found[0].obj)):
            self._count_down(request, route, found[0])

    def _count_down(self, request: Request, route: Route, budget: Entry) -> None:
        obj = budget.obj
        name, status = obj["metadata"]["name"], obj.get("status") or {}
        if status.get("observedGeneration", 0) < obj["metadata"].get("generation", 0):
            raise _refused(f"The disruption budget {name} is still being processed by the server.")
        if status.get("disruptionsAllowed", 0) < 1:
            needs, has = status.get("desiredHealthy", 0), status.get("currentHealthy", 0)
            raise _refused(f"The disruption budget {name} needs {needs} healthy pods and has {has} currently")
        disrupted = dict(status.get("disruptedPods") or {})
        if len(disrupted) >= DISRUPTED_MAX:
            raise Refused(
                403,
                "Forbidden",
                "DisruptedPods map too big - too many evictions not confirmed by PDB controller",
            )
        disrupted[route.name] = wire_time(self._clock.now())
        counted = status | {
            "disruptionsAllowed": status["disruptionsAllowed"] - 1,
            "disruptedPods": disrupted,
        }
        if not request.dry_run:
            target = Route(self._budgets, route.namespace, name, "status", "update")
            self._writes.replace_status(target, counted)


def _refused(message: str) -> Refused:
    return Refused(
        429,
        "TooManyRequests",
        "Cannot evict pod as it would violate the pod's disruption budget.",
        details={"causes": [{"reason": "DisruptionBudget", "message": message}]},
    )


def _unready(pod: Json) -> bool:
    conditions = pod["status"].get("conditions") or ()
    return not any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def _lets_unready_go(budget: Json) -> bool:
    if budget["spec"].get("unhealthyPodEvictionPolicy") == "AlwaysAllow":
        return True
    status = budget.get("status") or {}
    return bool(status.get("currentHealthy", 0) >= status.get("desiredHealthy", 1) > 0)
