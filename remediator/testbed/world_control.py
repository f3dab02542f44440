"""What a person may do to the machines of a test bed that stands: silence, repairs, conditions, healing.

The control endpoint of the hardware process takes these beside everything that exporters can be
asked (exporter_control.py), so that one address serves both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum
from types import MappingProxyType
from typing import Any, Final, TypeVar

from remediator.errors import PermanentError
from remediator.fleet.exporter_state import ExporterStates
from remediator.fleet.repairs import (
    JobEnds,
    Reboot,
    Returns,
)
from remediator.testbed import node_edits
from remediator.testbed.api import Api
from remediator.testbed.exporter_control import OPERATIONS, Operations, apply_operation, read_operation
from remediator.testbed.hardware import (
    Hardware,
)
from remediator.testbed.node_edits import NODES
from remediator.testbed.repair_player import (
    RepairPlayer,
)

W = TypeVar("W", bound=Enum)

REASON: Final = "Injected"
HEALED: Final = "Healed"
NODE_OPERATIONS: Final[Operations] = MappingProxyType(
    {
        "go_silent": {},
        "go_not_ready": {},
        "come_back": {},
        "delete_node": {"keep_pods": (bool,)},
        "recreate_node": {"same_machine": (bool,), "keep_pods": (bool,)},
        "plan_repair": {
            "times": (int,),
            "late_s": (int, float),
            "new_boot_id": (bool,),
            "fault_persists": (bool,),
            "returns": (str,),
            "job": (str,),
        },
        "set_condition": {"condition": (str,), "status": (str,)},
        "heal_node": {},
    }
)
_OPPOSITE: Final = {"True": "False", "False": "True"}


class WorldControl:
    """Does what control messages ask for.

    Args:
        api: an administrator's client.
        hardware: of the fleet.
        states: what the exporters of the GPU nodes show.
        player: answers repair Jobs.
    """

    def __init__(self, api: Api, hardware: Hardware, states: ExporterStates, player: RepairPlayer) -> None:
        self._api = api
        self._hardware = hardware
        self._states = states
        self._player = player
        self._do: Mapping[str, Callable[..., object]] = {
            "go_silent": hardware.go_silent,
            "go_not_ready": hardware.go_not_ready,
            "come_back": hardware.come_back,
            "delete_node": hardware.delete_node,
            "recreate_node": hardware.recreate_node,
            "plan_repair": self._plan_repair,
            "set_condition": self._set_condition,
            "heal_node": self._heal,
        }
        self._before: dict[
            tuple[str, str], str
        ] = {}  # (node, condition) -> status before the first injection

    def apply(self, wanted: object) -> None:
        """Do one message.

        Raises:
            PermanentError: it is no message, or names a node, a GPU or a field that there is not.
            RemediatorError: the API server refused, or the node did not come back in time.
        """
        named = wanted.get("op") if isinstance(wanted, dict) else None
        if named not in NODE_OPERATIONS and named in OPERATIONS:
            apply_operation(self._states, wanted)
            return
        operation, node, given = read_operation(wanted, {**OPERATIONS, **NODE_OPERATIONS})
        self._hardware.spec(node)  # refuses an unknown node
        self._do[operation](node, **given)

    def _plan_repair(self, node: str, *, returns: str, job: str, **reboot: Any) -> None:
        plan = Reboot(returns=_word(Returns, returns), **reboot)
        self._player.plan(node, plan, job=_word(JobEnds, job))

    def _set_condition(self, node: str, *, condition: str, status: str) -> None:
        before = node_edits.status_of(self._api.get(f"{NODES}/{node}"), condition)
        self._hardware.set_condition(node, condition, status, REASON)
        # A condition that nobody had before is healed by its opposite: a detector would keep it, too.
        self._before.setdefault((node, condition), before or _OPPOSITE.get(status, "False"))

    def _heal(self, node: str) -> None:
        if self._api.find(f"{NODES}/{node}") is None:
            self._hardware.recreate_node(node)
        if node in self._states.nodes:
            self._states.heal(node)
            node_edits.set_allocatable_gpus(self._api, node, None)
        for key in sorted(self._before):
            if key[0] == node:
                self._hardware.set_condition(node, key[1], self._before.pop(key), HEALED)
        self._player.plan(node)
        self._hardware.come_back(node)


def _word(words: type[W], text: str) -> W:
    """The member of that name.

    Raises:
        PermanentError: there is none.
    """
    for each in words:
        if each.name.lower() == text:
            return each
    known = ", ".join(each.name.lower() for each in words)
    raise PermanentError(f"{text!r} is none of {known}")
