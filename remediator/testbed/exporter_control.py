"""The control endpoint of the fake exporters: JSON in, one call on their state out.

    curl -d '{"op": "inject_xid", "node": "gpu-a-01", "gpu": 3, "code": 79}' http://127.0.0.1:9401/control

``OPERATIONS`` lists everything that can be asked. Tests in the same process call the methods of
``ExporterStates`` instead.
"""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from remediator.errors import PermanentError, TransientError
from remediator.fleet.exporter_state import ExporterStates
from remediator.fleet.pages import PodLabels

CONTROL_BYTES_MAX: Final = 4096
REPLY_BYTES_MAX: Final = 1_000_000

# Operation -> its arguments after "op" and "node", in the order of the method of the same name.
Operations = Mapping[str, Mapping[str, tuple[type, ...]]]
OPERATIONS: Final[Operations] = MappingProxyType(
    {
        "inject_xid": {"gpu": (int,), "code": (int,)},
        "set_gauge": {"gpu": (int,), "field": (str,), "value": (int, float, str)},
        "lose_gpu": {"gpu": (int,)},
        "replace_gpus": {},
        "replace_machine": {},
        "reboot": {},
        "restart_exporter": {},
        "stale": {},
        "slow": {"seconds": (int, float)},
        "truncate": {},
        "malformed": {},
        "html": {},
        "binary": {},
        "endless": {},
        "empty": {},
        "down": {},
        "up": {},
        "mend": {},
        "heal": {},
        "set_new_names": {"on": (bool,)},
        "set_host": {"host": (str,)},
        "hide_field": {"field": (str,)},
        "set_pod": {"gpu": (int,), "pod": (str,)},
        "set_mig": {"gpu": (int,), "instances": (int,)},
    }
)


def apply_operation(states: ExporterStates, wanted: object) -> None:
    """Do what one control message asks for.

    Args:
        states: what the exporters show.
        wanted: the decoded JSON: "op", "node" and the arguments of that operation, all required.

    Raises:
        PermanentError: not an object, an unknown operation, node or GPU, or arguments that do not fit.
    """
    operation, node, given = read_operation(wanted, OPERATIONS)
    if operation == "set_pod":
        given["pod"] = PodLabels(pod=given["pod"]) if given["pod"] else None
    getattr(states, operation)(node, *(given[name] for name in OPERATIONS[operation]))


def read_operation(wanted: object, operations: Operations) -> tuple[str, str, dict[str, Any]]:
    """Check one control message; return its operation, its node, and the arguments by name.

    Raises:
        PermanentError: not an object, an unknown operation, or arguments that do not fit.
    """
    if not isinstance(wanted, dict):
        raise PermanentError(f'send a JSON object with "op" and "node", below {CONTROL_BYTES_MAX} bytes')
    given = dict(wanted)
    operation, node = given.pop("op", None), given.pop("node", None)
    if not isinstance(operation, str) or operation not in operations:
        raise PermanentError(f"no operation {operation!r}; there are {', '.join(operations)}")
    expected = operations[operation]
    if not isinstance(node, str) or set(given) != set(expected):
        names = ", ".join(("node", *expected))
        raise PermanentError(f"{operation} takes {names}; got {', '.join(map(repr, sorted(wanted)))}")
    for name, types in expected.items():
        if type(given[name]) not in types:
            kinds = " or ".join(each.__name__ for each in types)
            raise PermanentError(f"{operation}: {name} is {given[name]!r}; it must be {kinds}")
    return operation, node, given


def control(
    base_url: str, operation: str, node: str, *, timeout_s: float = 10.0, **arguments: object
) -> None:
    """Ask a running server for one operation.

    Args:
        base_url: such as ``http://127.0.0.1:9401``.
        operation: a key of ``OPERATIONS``.
        node: name of the node.
        timeout_s: of the whole request, seconds.
        arguments: those of the operation.

    Raises:
        PermanentError: the server refused, with its own text.
        TransientError: no reply arrived.
    """
    body = json.dumps({"op": operation, "node": node, **arguments}).encode()
    request = urllib.request.Request(f"{base_url}/control", data=body, method="POST")
    try:
        with urllib.request.urlopen(request, timeout=timeout_s) as reply:
            reply.read(REPLY_BYTES_MAX)
    except urllib.error.HTTPError as error:
        text = error.read(REPLY_BYTES_MAX).decode(errors="replace")
        raise PermanentError(f"{operation} of {node} refused: {text}", status=error.code) from error
    except OSError as error:
        raise TransientError(f"{base_url}: {operation} of {node}: {error}") from error
