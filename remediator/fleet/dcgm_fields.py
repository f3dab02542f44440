"""The 52 fields that the fake exporter shows: names, types, healthy values, what resets them.

Data only. Names and types follow the default counters file of dcgm-exporter 4.5.3 plus the fields
that sites switch on for fault handling; ``new_name`` is the name since DCGM 4.6.

Source: NVIDIA/dcgm-exporter etc/default-counters.csv; NVIDIA/DCGM dcgm_fields.h (4.6.0).
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final


class Reset(enum.Enum):
    """What brings a field back to its healthy value."""

    NEVER = "never"  # kept in the board's InfoROM
    REBOOT = "reboot"  # driver or hardware state
    RESTART = "restart"  # counted by the exporter process; a reboot restarts that too


@dataclass(frozen=True, slots=True)
class Field:
    """One metric family. A healthy GPU shows a constant between ``low`` and ``high``, both included."""

    name: str
    type: str
    help: str
    low: float
    high: float
    decimals: int = 0
    reset: Reset = Reset.REBOOT
    new_name: str = ""

    def shown_as(self, *, new_names: bool) -> str:
        return self.new_name if new_names and self.new_name else self.name


XID: Final = "DCGM_FI_DEV_XID_ERRORS"
ENERGY: Final = "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION"
REMAP_PENDING: Final = "DCGM_FI_DEV_ROW_REMAP_PENDING"
REMAP_FAILURE: Final = "DCGM_FI_DEV_ROW_REMAP_FAILURE"
DRIVER_LABEL: Final = "DCGM_FI_DRIVER_VERSION"
DRIVER_LABEL_NEW: Final = "DCGM_FI_SYSTEM_DRIVER_VERSION"

_RESTART: Final = Reset.RESTART
_NEVER: Final = Reset.NEVER


def _gauge(name: str, text: str, low: float, high: float, decimals: int = 0, new: str = "") -> Field:
    return Field(f"DCGM_FI_{name}", "gauge", text, low, high, decimals, new_name=new and f"DCGM_FI_{new}")


def _counter(name: str, text: str, high: float, reset: Reset, new: str = "") -> Field:
    new_name = new and f"DCGM_FI_{new}"
    return Field(f"DCGM_FI_{name}", "counter", text, 0, high, reset=reset, new_name=new_name)


# fmt: off
FIELDS: Final[tuple[Field, ...]] = (
    _gauge("DEV_SM_CLOCK", "SM clock frequency (in MHz).", 1755, 1980),
    _gauge("DEV_MEM_CLOCK", "Memory clock frequency (in MHz).", 2619, 2619),
    _gauge("DEV_MEMORY_TEMP", "Memory temperature (in C).", 48, 74, new="DEV_MEMORY_TEMP_CELSIUS"),
    _gauge("DEV_GPU_TEMP", "GPU temperature (in C).", 41, 66, new="DEV_GPU_TEMP_CELSIUS"),
    _gauge("DEV_GPU_TEMP_LIMIT", "Margin to the temperature limit (in C).", 21, 44,
           new="DEV_GPU_TEMP_MARGIN_CELSIUS"),
    _gauge("DEV_POWER_USAGE", "Power draw (in W).", 420, 690, 6),
    _counter("DEV_TOTAL_ENERGY_CONSUMPTION", "Total energy consumption since boot (in mJ).",
             9e11, Reset.REBOOT),
    _counter("DEV_PCIE_REPLAY_COUNTER", "Total number of PCIe retries.", 0, _RESTART,
             "DEV_PCIE_REPLAY_TOTAL"),
    _gauge("DEV_GPU_UTIL", "GPU utilization (in %).", 88, 100),
    _gauge("DEV_MEM_COPY_UTIL", "Memory utilization (in %).", 30, 70),
    _gauge("DEV_ENC_UTIL", "Encoder utilization (in %).", 0, 0),
    _gauge("DEV_DEC_UTIL", "Decoder utilization (in %).", 0, 0),
    Field(XID, "gauge", "Value of the last XID error encountered.", 0, 0, reset=_RESTART,
          new_name="DCGM_FI_DEV_XID_ERROR"),
    _counter("DEV_POWER_VIOLATION", "Throttling duration due to power constraints (in ns).",
             4e9, _RESTART),
    _counter("DEV_THERMAL_VIOLATION", "Throttling duration due to thermal constraints (in ns).",
             0, _RESTART),
    _counter("DEV_SYNC_BOOST_VIOLATION", "Throttling duration due to sync-boost constraints (in ns).",
             0, _RESTART),
    _counter("DEV_BOARD_LIMIT_VIOLATION", "Throttling duration due to board limit constraints (in ns).",
             0, _RESTART),
    _counter("DEV_LOW_UTIL_VIOLATION", "Throttling duration due to low utilization (in ns).",
             0, _RESTART),
    _counter("DEV_RELIABILITY_VIOLATION", "Throttling duration due to reliability constraints (in ns).",
             0, _RESTART),
    _gauge("DEV_FB_FREE", "Framebuffer memory free (in MiB).", 9_000, 21_000),
    _gauge("DEV_FB_USED", "Framebuffer memory used (in MiB).", 60_000, 71_000),
    _gauge("DEV_FB_RESERVED", "Framebuffer memory reserved (in MiB).", 532, 532),
    _counter("DEV_ECC_SBE_VOL_TOTAL", "Total number of single-bit volatile ECC errors.", 0, Reset.REBOOT),
    _counter("DEV_ECC_DBE_VOL_TOTAL", "Total number of double-bit volatile ECC errors.", 0, Reset.REBOOT),
    _counter("DEV_ECC_SBE_AGG_TOTAL", "Total number of single-bit persistent ECC errors.", 3, _NEVER),
    _counter("DEV_ECC_DBE_AGG_TOTAL", "Total number of double-bit persistent ECC errors.", 0, _NEVER),
    _counter("DEV_UNCORRECTABLE_REMAPPED_ROWS", "Number of remapped rows for uncorrectable errors",
             0, _NEVER, "DEV_ROW_REMAP_UNCORRECTABLE_TOTAL"),
    _counter("DEV_CORRECTABLE_REMAPPED_ROWS", "Number of remapped rows for correctable errors",
             1, _NEVER, "DEV_ROW_REMAP_CORRECTABLE_TOTAL"),
    Field(REMAP_FAILURE, "gauge", "Whether remapping of rows has failed", 0, 0, reset=_NEVER,
          new_name="DCGM_FI_DEV_ROW_REMAP_FAILED"),
    _gauge("DEV_ROW_REMAP_PENDING", "Whether remapping of rows is pending", 0, 0),
    _counter("DEV_NVLINK_CRC_FLIT_ERROR_COUNT_TOTAL", "Total number of NVLink flow-control CRC errors.",
             0, Reset.REBOOT, "DEV_NVLINK_CRC_FLIT_ERROR_TOTAL"),
    _counter("DEV_NVLINK_CRC_DATA_ERROR_COUNT_TOTAL", "Total number of NVLink data CRC errors.",
             0, Reset.REBOOT, "DEV_NVLINK_CRC_DATA_ERROR_TOTAL"),
    _counter("DEV_NVLINK_REPLAY_ERROR_COUNT_TOTAL", "Total number of NVLink retries.",
             0, Reset.REBOOT, "DEV_NVLINK_REPLAY_ERROR_TOTAL"),
    _counter("DEV_NVLINK_RECOVERY_ERROR_COUNT_TOTAL", "Total number of NVLink recovery errors.",
             0, Reset.REBOOT, "DEV_NVLINK_RECOVERY_ERROR_TOTAL"),
    _counter("DEV_NVLINK_BANDWIDTH_TOTAL", "Total number of NVLink bandwidth counters for all lanes.",
             9e8, Reset.REBOOT),
    _gauge("DEV_VGPU_LICENSE_STATUS", "vGPU License status", 0, 0),
    _gauge("DEV_FABRIC_MANAGER_STATUS", "The status of the fabric manager.", 3, 3),
    _gauge("DEV_FABRIC_MANAGER_ERROR", "The failure that happened while starting it.", 0, 0),
    _gauge("DEV_GET_GPU_RECOVERY_ACTION", "The action that brings the GPU back.", 0, 0),
    _gauge("DEV_CLOCK_THROTTLE_REASONS", "Bit mask of clock event reasons.", 0, 0),
    _gauge("PROF_GR_ENGINE_ACTIVE", "Ratio of time the graphics engine is active.", 0.9, 1, 6),
    _gauge("PROF_SM_ACTIVE", "The ratio of cycles an SM has at least 1 warp assigned.", 0.7, 0.95, 6),
    _gauge("PROF_SM_OCCUPANCY", "The ratio of number of warps resident on an SM.", 0.2, 0.5, 6),
    _gauge("PROF_PIPE_TENSOR_ACTIVE", "Ratio of cycles the tensor (HMMA) pipe is active.", 0.3, 0.6, 6),
    _gauge("PROF_DRAM_ACTIVE", "Ratio of cycles the device memory interface is active.", 0.3, 0.7, 6),
    _gauge("PROF_PIPE_FP64_ACTIVE", "Ratio of cycles the fp64 pipes are active.", 0, 0.01, 6),
    _gauge("PROF_PIPE_FP32_ACTIVE", "Ratio of cycles the fp32 pipes are active.", 0.05, 0.2, 6),
    _gauge("PROF_PIPE_FP16_ACTIVE", "Ratio of cycles the fp16 pipes are active.", 0.01, 0.1, 6),
    _gauge("PROF_PCIE_TX_BYTES", "The rate of data transmitted over the PCIe bus.", 1e8, 4e9),
    _gauge("PROF_PCIE_RX_BYTES", "The rate of data received over the PCIe bus.", 1e8, 4e9),
    _gauge("PROF_NVLINK_TX_BYTES", "The rate of data transmitted over NVLink.", 1e10, 2e11),
    _gauge("PROF_NVLINK_RX_BYTES", "The rate of data received over NVLink.", 1e10, 2e11),
)
# fmt: on

BY_NAME: Final = {field.name: field for field in FIELDS} | {
    field.new_name: field for field in FIELDS if field.new_name
}

# Texts of the exporter's own table for the codes that tests use; it says "Unknown Error" for the rest.
XID_TEXTS: Final = {
    0: "No Error",
    13: "Graphics Engine Exception",
    31: "GPU memory page fault",
    43: "GPU stopped processing",
    45: "Preemptive cleanup, due to previous errors",
    48: "Double Bit ECC Error",
    61: "Internal micro-controller breakpoint/warning",
    62: "Internal micro-controller halt",
    63: "ECC page retirement or row remapping recording event",
    64: "ECC page retirement or row remapper recording failure",
    74: "NVLINK Error",
    79: "GPU has fallen off the bus",
    92: "High single-bit ECC error rate",
    94: "Contained ECC error",
    95: "Uncontained ECC error",
    119: "GSP RPC Timeout",
    120: "GSP Error",
    140: "Unrecovered ECC Error",
    143: "GPU Initialization Failure",
    145: "NVLINK RLW Error",
    149: "NVLINK NETIR Error",
    154: "GPU Recovery Action Changed",
}

#: Those by which faults are told.
TELLING: Final = frozenset(
    f"DCGM_FI_DEV_{name}"
    for name in (
        "XID_ERRORS",
        "GPU_TEMP",
        "ROW_REMAP_PENDING",
        "ROW_REMAP_FAILURE",
        "UNCORRECTABLE_REMAPPED_ROWS",
        "ECC_DBE_VOL_TOTAL",
    )
)
