"""Starts the image as the Deployment does: in-cluster credentials, read-only root, no capability.

podman stands for the kubelet, on the network of this machine and with the test bed as its cluster.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import urllib.error
import urllib.request
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import urlsplit

from remediator.errors import PermanentError
from remediator.testbed.api import Api
from remediator.testbed.stage import ACCOUNT, NAMESPACE

MOUNT: Final = "/var/run/secrets/kubernetes.io/serviceaccount"
COMMAND_S_MAX: Final = 60
ASK_S_MAX: Final = 2.0
STOP_S: Final = 15
# vfs and cgroupfs: podman then needs neither overlay mounts nor systemd, which a build machine may not have.
PODMAN: Final = ("podman", "--storage-driver", os.environ.get("STORAGE_DRIVER", "vfs"))
RUNTIME: Final = ("--cgroup-manager", "cgroupfs", "--runtime", os.environ.get("OCI_RUNTIME", "runc"))


def podman(*words: str, timeout_s: float = COMMAND_S_MAX) -> str:
    """Run podman to its end and return what it printed.

    Raises:
        PermanentError: it failed; the message holds what it said.
    """
    done = subprocess.run(
        [*PODMAN, *RUNTIME, *words], capture_output=True, text=True, timeout=timeout_s, check=False
    )
    if done.returncode:
        raise PermanentError(f"podman {' '.join(words)} (exit {done.returncode}): {done.stderr.strip()}")
    return done.stdout


def inspect_image(image: str) -> dict[str, Any]:
    """What the image says of itself.

    Raises:
        PermanentError: there is no such image; `make image` builds it.
    """
    (found,) = json.loads(podman("image", "inspect", image))
    return dict(found)


class Container:
    """One running container of the image; a context manager that removes it.

    Args:
        image: its name; it is never pulled.
        name: of the container, and of the pod that it believes to be.
        api: an administrator of the cluster, who mints the token.
        directory: empty; takes the credentials.
        port: free on this machine, for probes and metrics.
    """

    def __init__(self, image: str, *, name: str, api: Api, directory: Path, port: int) -> None:
        self.name = name
        self._image = image
        self._api = api
        self._directory = directory
        self._port = port

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        podman("rm", "--force", "--time", str(STOP_S), self.name)

    def start(self) -> None:
        server = urlsplit(self._api.access.server)
        environment = {
            "KUBERNETES_SERVICE_HOST": server.hostname,
            "KUBERNETES_SERVICE_PORT": server.port,
            "POD_NAME": self.name,
            "POD_NAMESPACE": NAMESPACE,
            "NODE_NAME": "system-01",
        }
        _, files_max = resource.getrlimit(resource.RLIMIT_NOFILE)
        podman(
            *("run", "--detach", "--pull", "never", "--name", self.name, "--network", "host"),
            *("--read-only", "--read-only-tmpfs=false", "--cap-drop", "all"),
            *("--security-opt", "no-new-privileges"),
            *("--ulimit", f"nofile={files_max}:{files_max}", "--ulimit", "nproc=1024:1024"),
            *("--volume", f"{self._credentials()}:{MOUNT}:ro"),
            *(word for key, value in environment.items() for word in ("--env", f"{key}={value}")),
            *(self._image, "run", "--host", "127.0.0.1", "--port", str(self._port)),
        )

    def _credentials(self) -> Path:
        """The three files that a kubelet mounts, readable by any user as there."""
        made = {
            "token": self._api.service_account_token(NAMESPACE, ACCOUNT).encode(),
            "ca.crt": self._api.access.authority,
            "namespace": NAMESPACE.encode(),
        }
        self._directory.mkdir(parents=True)
        for name, content in made.items():
            (self._directory / name).write_bytes(content)
            (self._directory / name).chmod(0o644)
        self._directory.chmod(0o755)
        return self._directory

    @property
    def pid(self) -> int:
        """Of its first process, as this machine counts; 0 once it has ended."""
        return int(podman("inspect", "--format", "{{.State.Pid}}", self.name))

    @property
    def exit_code(self) -> int:
        return int(podman("inspect", "--format", "{{.State.ExitCode}}", self.name))

    def logs(self) -> str:
        done = subprocess.run(
            [*PODMAN, *RUNTIME, "logs", self.name], capture_output=True, timeout=COMMAND_S_MAX, check=True
        )
        return (done.stdout + done.stderr).decode(errors="replace")

    def answers(self, path: str) -> bool:
        """Does the port answer a GET of this path with 200?"""
        return self.read(path) is not None

    def read(self, path: str) -> str | None:
        """The body of a 200 answer; None for any other, and for none."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._port}{path}", timeout=ASK_S_MAX) as reply:
                return reply.read().decode() if reply.status == HTTPStatus.OK else None
        except (urllib.error.URLError, OSError):
            return None

    def leads(self) -> bool:
        return "\nremediator_leader 1.0\n" in (self.read("/metrics") or "")

    def stop(self) -> None:
        """SIGTERM, as the kubelet sends it, and SIGKILL after a while."""
        podman("stop", "--time", str(STOP_S), self.name)
