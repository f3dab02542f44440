"""One Node as a GPU cluster has it: about 20 KB of labels, images and conditions. Pure.

Only what a reader may look at is telling (pool, rack, identity, GPUs); the rest is there because a
real Node carries it, and sizes and parsers are measured on it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from remediator.fleet.machines import DRIVER_VERSION, GPU_MODEL, Machine

LABEL_POOL: Final = "example.com/pool"
LABEL_RACK: Final = "topology.example.com/rack"
LABEL_ZONE: Final = "topology.kubernetes.io/zone"
LABEL_REGION: Final = "topology.kubernetes.io/region"
LABEL_CLIQUE: Final = "nvidia.com/gpu.clique"
LABEL_ASSET: Final = "example.com/asset-tag"
KUBELET_LABEL: Final = "testbed/kubelet"  # of a node whose kubelet is played
KUBELET_ALIVE: Final = "alive"

REGION: Final = "region-1"
KUBELET_VERSION: Final = "v1.36.4"
IMAGES: Final = 50

# fmt: off
_CPU_FLAGS: Final = (
    "ADX", "AESNI", "AMXBF16", "AMXINT8", "AMXTILE", "AVX", "AVX2", "AVX512BW", "AVX512CD", "AVX512DQ",
    "AVX512F", "AVX512FP16", "AVX512VL", "AVX512VNNI", "FMA3", "GFNI", "HLE", "RTM", "SHA", "VAES", "VMX",
)
# fmt: on

# A JSON object of Kubernetes. The one place of the test bed where types end: these are built by
# hand and sent as they are.
Object = dict[str, Any]


@dataclass(frozen=True, slots=True)
class NodeSpec:
    """What makes one node of a fleet this node. ``pool`` is empty for a node without pool and taint.

    ``product`` is the GPU that its label names; ``gate`` the key of a taint that its kubelet registers.
    """

    name: str
    machine: Machine
    address: str
    zone: str
    rack: str = ""
    pool: str = ""
    clique: str = ""
    product: str = GPU_MODEL
    gate: str = ""

    @property
    def gpus(self) -> int:
        return len(self.machine.gpu_uuids)


def node_object(spec: NodeSpec, *, at: str, eks: bool = False) -> Object:
    """Build the Node as its kubelet would register it: not Ready yet, with full status.

    Args:
        spec: which node.
        at: RFC 3339 time for all condition times.
        eks: also carry the conditions of the EKS node monitoring agent, which are good when True.
    """
    taints = [{"key": LABEL_POOL, "value": spec.pool, "effect": "NoSchedule"}] if spec.pool else []
    if spec.gate:
        taints.append({"key": spec.gate, "effect": "NoSchedule"})
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": spec.name, "labels": _labels(spec), "annotations": _annotations(spec)},
        "spec": {"providerID": f"example://{spec.zone}/{spec.machine.system_uuid}", "taints": taints},
        "status": {
            "addresses": [
                {"type": "InternalIP", "address": spec.address},
                {"type": "Hostname", "address": spec.name},
            ],
            "capacity": _resources(spec, reserved=False),
            "allocatable": _resources(spec, reserved=True),
            "conditions": [*_kubelet_conditions(at), *_detector_conditions(at, eks=eks)],
            "nodeInfo": node_info(spec.machine),
            "images": _images(),
            "daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}},
        },
    }


def node_info(machine: Machine) -> dict[str, str]:
    """``status.nodeInfo``; every value is text."""
    return {
        "architecture": "amd64",
        "bootID": machine.boot_id,
        "containerRuntimeVersion": "containerd://2.1.4",
        "kernelVersion": "6.8.0-85-generic",
        "kubeProxyVersion": "",
        "kubeletVersion": KUBELET_VERSION,
        "machineID": machine.machine_id,
        "operatingSystem": "linux",
        "osImage": "Ubuntu 24.04.3 LTS",
        "systemUUID": machine.system_uuid,
    }


def condition(type_: str, status: str, reason: str, message: str, at: str) -> dict[str, str]:
    """One node condition whose times are both ``at``."""
    return {
        "type": type_,
        "status": status,
        "reason": reason,
        "message": message,
        "lastHeartbeatTime": at,
        "lastTransitionTime": at,
    }


def _labels(spec: NodeSpec) -> dict[str, str]:
    labels = {
        "kubernetes.io/hostname": spec.name,
        "kubernetes.io/os": "linux",
        "kubernetes.io/arch": "amd64",
        "beta.kubernetes.io/os": "linux",
        "beta.kubernetes.io/arch": "amd64",
        LABEL_REGION: REGION,
        LABEL_ZONE: spec.zone,
        KUBELET_LABEL: KUBELET_ALIVE,
        **_feature_labels(),
    }
    if spec.gpus:
        labels |= _gpu_labels(spec)
    else:
        labels |= {"node.kubernetes.io/instance-type": "m7.4xlarge", "node-role.kubernetes.io/system": ""}
    optional = {LABEL_RACK: spec.rack, LABEL_POOL: spec.pool, LABEL_CLIQUE: spec.clique}
    return labels | {key: value for key, value in optional.items() if value}


def _gpu_labels(spec: NodeSpec) -> dict[str, str]:
    major, minor, revision = DRIVER_VERSION.split(".")
    features: Mapping[str, str] = {
        "cuda.driver-version.full": DRIVER_VERSION,
        "cuda.driver-version.major": major,
        "cuda.driver-version.minor": minor,
        "cuda.driver-version.revision": revision,
        "cuda.runtime-version.full": "12.8",
        "cuda.runtime-version.major": "12",
        "cuda.runtime-version.minor": "8",
        "gfd.timestamp": "1767225600",
        "gpu-driver-upgrade-state": "upgrade-done",
        "gpu.compute.major": "9",
        "gpu.compute.minor": "0",
        "gpu.count": str(spec.gpus),
        "gpu.deploy.container-toolkit": "true",
        "gpu.deploy.dcgm": "true",
        "gpu.deploy.dcgm-exporter": "true",
        "gpu.deploy.device-plugin": "true",
        "gpu.deploy.driver": "true",
        "gpu.deploy.gpu-feature-discovery": "true",
        "gpu.deploy.mig-manager": "true",
        "gpu.deploy.node-status-exporter": "true",
        "gpu.deploy.operator-validator": "true",
        "gpu.family": "hopper",
        "gpu.machine": "HGX-H100-8U",
        "gpu.memory": "81559",
        "gpu.mode": "compute",
        "gpu.present": "true",
        "gpu.product": spec.product.replace(" ", "-"),
        "gpu.replicas": "1",
        "gpu.sharing-strategy": "none",
        "mig.capable": "true",
        "mig.config": "all-disabled",
        "mig.config.state": "success",
        "mig.strategy": "single",
        "mps.capable": "false",
        "vgpu.present": "false",
    }
    named = {f"nvidia.com/{key}": value for key, value in features.items()}
    named["node.kubernetes.io/instance-type"] = "hgx.h100.8x"
    named[LABEL_ASSET] = spec.machine.asset_tag
    return named


def _feature_labels() -> dict[str, str]:
    prefix = "feature.node.kubernetes.io"
    return {
        **{f"{prefix}/cpu-cpuid.{flag}": "true" for flag in _CPU_FLAGS},
        f"{prefix}/cpu-hardware_multithreading": "true",
        f"{prefix}/cpu-model.family": "6",
        f"{prefix}/cpu-model.id": "143",
        f"{prefix}/cpu-model.vendor_id": "Intel",
        f"{prefix}/kernel-version.full": "6.8.0-85-generic",
        f"{prefix}/kernel-version.major": "6",
        f"{prefix}/kernel-version.minor": "8",
        f"{prefix}/memory-numa": "true",
        f"{prefix}/network-sriov.capable": "true",
        f"{prefix}/pci-10de.present": "true",
        f"{prefix}/rdma.available": "true",
        f"{prefix}/rdma.capable": "true",
        f"{prefix}/storage-nonrotationaldisk": "true",
        f"{prefix}/system-os_release.ID": "ubuntu",
        f"{prefix}/system-os_release.VERSION_ID": "24.04",
    }


def _annotations(spec: NodeSpec) -> dict[str, str]:
    return {
        LABEL_ASSET: spec.machine.asset_tag,
        "node.alpha.kubernetes.io/ttl": "0",
        "volumes.kubernetes.io/controller-managed-attach-detach": "true",
        "csi.volume.kubernetes.io/nodeid": f'{{"csi.example.com":"{spec.machine.system_uuid}"}}',
        "nfd.node.kubernetes.io/feature-labels": ",".join(
            key.removeprefix("feature.node.kubernetes.io/") for key in _feature_labels()
        ),
        "nvidia.com/gpu-driver-upgrade-enabled": "true",
        "projectcalico.org/IPv4Address": f"{spec.address}/24",
    }


def _resources(spec: NodeSpec, *, reserved: bool) -> dict[str, str]:
    cpu, memory_gi = (192, 2015) if spec.gpus else (16, 62)
    resources = {
        "cpu": f"{cpu * 1000 - 400}m" if reserved else str(cpu),
        "memory": f"{memory_gi - 3 if reserved else memory_gi}Gi",
        "ephemeral-storage": "28Ti" if spec.gpus else "180Gi",
        "hugepages-1Gi": "0",
        "hugepages-2Mi": "0",
        "pods": "110",
    }
    if spec.gpus:
        resources |= {"nvidia.com/gpu": str(spec.gpus), "rdma/hca_shared_devices": "64"}
    return resources


def _kubelet_conditions(at: str) -> list[dict[str, str]]:
    good = (
        ("MemoryPressure", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
        ("DiskPressure", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
        ("PIDPressure", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
        ("NetworkUnavailable", "CalicoIsUp", "Calico is running on this node"),
    )
    rows = [condition(type_, "False", reason, message, at) for type_, reason, message in good]
    # Whoever creates the Node is not its kubelet: only that may say Ready.
    return [*rows, condition("Ready", "False", "KubeletNotReady", "container runtime is starting", at)]


def _detector_conditions(at: str, *, eks: bool) -> list[dict[str, str]]:
    quiet = (
        ("KernelDeadlock", "KernelHasNoDeadlock", "kernel has no deadlock"),
        ("XfsShutdown", "XfsHasNotShutDown", "XFS has not shutdown"),
        ("CperHardwareErrorFatal", "CperHardwareHasNoFatalError", "UEFI CPER has no fatal error"),
        ("ReadonlyFilesystem", "FilesystemIsNotReadOnly", "Filesystem is not read-only"),
        ("CorruptDockerOverlay2", "NoCorruptDockerOverlay2", "docker overlay2 is functioning properly"),
        ("FrequentUnregisterNetDevice", "NoFrequentUnregisterNetDevice", "node is functioning properly"),
        ("FrequentKubeletRestart", "NoFrequentKubeletRestart", "kubelet is functioning properly"),
        ("FrequentDockerRestart", "NoFrequentDockerRestart", "docker is functioning properly"),
        ("FrequentContainerdRestart", "NoFrequentContainerdRestart", "containerd is functioning properly"),
        ("KubeletUnhealthy", "KubeletIsHealthy", "kubelet on the node is functioning properly"),
        ("ContainerRuntimeUnhealthy", "ContainerRuntimeIsHealthy", "Container runtime on the node is fine"),
        ("NTPProblem", "NTPIsUp", "ntp service is up"),
    )
    rows = [condition(type_, "False", reason, message, at) for type_, reason, message in quiet]
    if not eks:
        return rows
    family = ("AcceleratedHardware", "ContainerRuntime", "Kernel", "Networking", "Storage")
    return rows + [
        condition(f"{name}Ready", "True", f"{name}IsReady", f"Monitoring for {name} is active", at)
        for name in family
    ]


def _images() -> list[Object]:
    images: list[Object] = []
    for number in range(IMAGES):
        digest = hashlib.sha256(f"image {number}".encode()).hexdigest()
        repository = f"registry.example.com/platform/component-{number:02d}"
        names = [f"{repository}@sha256:{digest}", f"{repository}:v1.{number}.0-ubuntu24.04"]
        images.append({"names": names, "sizeBytes": 31_000_000 * (number + 1)})
    return images
