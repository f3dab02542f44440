"""What a person may do to the machines of a test bed that stands: silence, conditions, and healing.

The control endpoint of the hardware process takes these beside everything that exporters can be
asked (exporter_control.py), so that one address serves both.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Final

from remediator.testbed import node_edits
from remediator.testbed.api import Api
from remediator.testbed.exporter_control import OPERATIONS, Operations, apply_operation, read_operation
from remediator.testbed.exporter_state import ExporterStates
from remediator.testbed.hardware import Hardware
from remediator.testbed.node_edits import NODES

REASON: Final = "Injected"
HEALED: Final = "Healed"
NODE_OPERATIONS: Final[Operations] = MappingProxyType(
    {
        "go_silent": {},
        "come_back": {},
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
    """

    def __init__(self, api: Api, hardware: Hardware, states: ExporterStates) -> None:
        self._api = api
        self._hardware = hardware
        self._states = states
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
        if operation == "go_silent":
            self._hardware.go_silent(node)
        elif operation == "come_back":
            self._hardware.come_back(node)
        elif operation == "set_condition":
            self._set_condition(node, given["condition"], given["status"])
        else:
            self._heal(node)

    def _set_condition(self, node: str, type_: str, status: str) -> None:
        before = node_edits.status_of(self._api.get(f"{NODES}/{node}"), type_)
        self._hardware.set_condition(node, type_, status, REASON)
        # A condition that nobody had before is healed by its opposite: a detector would keep it, too.
        self._before.setdefault((node, type_), before or _OPPOSITE.get(status, "False"))

    def _heal(self, node: str) -> None:
        if node in self._states.nodes:
            self._states.heal(node)
            node_edits.set_allocatable_gpus(self._api, node, None)
        for key in sorted(self._before):
            if key[0] == node:
                self._hardware.set_condition(node, key[1], self._before.pop(key), HEALED)
        self._hardware.come_back(node)
