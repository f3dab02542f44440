"""Which status of a node condition is the good one. A table and one question; no memory.

Source: Kubernetes, node-problem-detector's default configuration, the EKS node monitoring agent,
AKS and GKE documentation, NVSentinel's monitors.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from types import MappingProxyType
from typing import Final, Literal

from remediator.model.policy import ConditionPolarity
from remediator.model.signal import Truth
from remediator.model.views import ConditionView

Status = Literal["True", "False"]

_KUBERNETES: Final[Mapping[str, Status]] = {
    "Ready": "True",
    "MemoryPressure": "False",
    "DiskPressure": "False",
    "PIDPressure": "False",
    "NetworkUnavailable": "False",
}
_PROBLEM_DETECTOR: Final = (
    "KernelDeadlock",
    "XfsShutdown",
    "CperHardwareErrorFatal",
    "ReadonlyFilesystem",
    "CorruptDockerOverlay2",
    "FrequentUnregisterNetDevice",
    "FrequentKubeletRestart",
    "FrequentDockerRestart",
    "FrequentContainerdRestart",
    "NTPProblem",
    "KubeletUnhealthy",
    "ContainerRuntimeUnhealthy",
)
_EKS: Final = (  # the one family in which True is good
    "AcceleratedHardwareReady",
    "ContainerRuntimeReady",
    "KernelReady",
    "NetworkingReady",
    "StorageReady",
)
_AKS: Final = (
    "KubeletProblem",
    "FilesystemCorruptionProblem",
    "ContainerRuntimeProblem",
    "VMEventScheduled",
    "GPUMissing",
    "NVLinkStatusInactive",
    "XIDErrors",
    "IBLinkFlapping",
    "UnhealthyNvidiaDevicePlugin",
)
_GKE: Final = ("XidCriticalError",)
_NVSENTINEL: Final = (
    "GpuMemWatch",
    "GpuThermalWatch",
    "GpuThermalMarginWatch",
    "GpuPcieWatch",
    "GpuPowerWatch",
    "GpuInforomWatch",
    "GpuSmWatch",
    "GpuNvlinkWatch",
    "GpuMcuWatch",
    "GpuPmuWatch",
    "GpuDriverWatch",
    "GpuCpusetWatch",
    "GpuDcgmConnectivityFailure",
    "GpuDcgmUnresponsive",
    "SysLogsXIDError",
    "SysLogsSXIDError",
    "SysLogsGPUFallenOff",
    "NVSwitchFatalError",
    "NVSwitchNonFatalError",
    "NVSwitchDown",
    "CSPMaintenance",
    "DCGMError",
    "SyslogError",
)

KNOWN: Final[Mapping[str, Status]] = MappingProxyType(
    {
        **_KUBERNETES,
        **dict.fromkeys(_EKS, "True"),
        **dict.fromkeys(_PROBLEM_DETECTOR + _AKS + _GKE + _NVSENTINEL, "False"),
    }
)

# These speak of the node and not of one boot: whoever writes them keeps them right over a reboot.
# Other conditions stand until their detector starts again.
OUTLIVE_A_BOOT: Final = frozenset(_KUBERNETES)


def overrides(conditions: Iterable[ConditionPolarity]) -> Mapping[str, Status]:
    """What the policy says, by condition type; the last of two entries of one type wins."""
    return {polarity.type: polarity.good for polarity in conditions}


def verdict(type_: str, status: str, overrides: Mapping[str, Status]) -> Truth:
    """Is the condition bad?

    Args:
        type_: the condition's type.
        status: as the server wrote it: True, False, Unknown, or empty where the node lacks it.
        overrides: good status by type; goes before the shipped table.

    Returns:
        UNKNOWN for a type that neither table knows, and for any status but True and False.
    """
    good = overrides.get(type_) or KNOWN.get(type_)
    if good is None or status not in ("True", "False"):
        return Truth.UNKNOWN
    return Truth.FALSE if status == good else Truth.TRUE


def unjudged(
    found: Iterable[ConditionView], overrides: Mapping[str, Status], read: Container[str]
) -> tuple[ConditionView, ...]:
    """Conditions of a node that nobody can call good or bad, in their order on it.

    Args:
        found: all of the node's.
        overrides: good status by type, as the policy has it.
        read: types that a playbook reads; its own status is its judgement.
    """
    known = KNOWN.keys() | overrides.keys()
    return tuple(each for each in found if each.type not in known and each.type not in read)
