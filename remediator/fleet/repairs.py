"""How repairs go: what becomes of a Job, of a reboot, and how a machine comes back. Plans, no deeds."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final

from remediator.errors import PermanentError

RETURNED_SICK_TEXT: Final = "container runtime is down after the reboot"
OFF_S: Final = 0.5


class Returns(enum.Enum):
    """How a node comes back from a reboot."""

    READY = "ready"
    NOT_READY = "not ready"  # the kubelet lives and says so
    SILENT = "silent"  # nothing is heard of it again


@dataclass(frozen=True, slots=True)
class Reboot:
    """How a reboot of one node goes; the default is a good one.

    ``times`` 0 is one that never happens, 2 one that happens twice. It begins ``late_s`` seconds
    after it was asked for. ``fault_persists`` leaves on the page what a reboot should have cured.
    """

    times: int = 1
    late_s: float = 0.0
    off_s: float = OFF_S
    new_boot_id: bool = True
    fault_persists: bool = False
    returns: Returns = Returns.READY

    def __post_init__(self) -> None:
        if not 0 <= self.times <= 5 or not 0 <= self.late_s <= 600 or not 0 <= self.off_s <= 600:
            raise PermanentError(f"{self}: times 0 to 5, late_s and off_s 0 to 600")


class JobEnds(enum.Enum):
    """How the pod of a repair Job ends, whatever becomes of the reboot."""

    SUCCEEDS = "Succeeded"
    FAILS = "Failed"  # and asks for no reboot
    HANGS = ""  # runs for ever and asks for no reboot
