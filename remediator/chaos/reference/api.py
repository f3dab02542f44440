"""The few requests of the reference controller, and what it reads of a Node."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final

import msgspec

from remediator.ports import Lane, Transport

Json = dict[str, Any]

NODES: Final = "/api/v1/nodes"
PODS: Final = "/api/v1/pods"
REPAIRS: Final = "/apis/reference.example.com/v1/repairs"
BOOK: Final = "/apis/reference.example.com/v1/books/book"
LEASE: Final = "/apis/coordination.k8s.io/v1/namespaces/reference/leases/reference"
JOBS: Final = "/apis/batch/v1/namespaces/reference/jobs"

PREFIX: Final = "reference.example.com"
FENCE: Final = f"{PREFIX}/fence"
WORK: Final = f"{PREFIX}/work"  # stays where somebody takes the fence away
TOUCHED: Final = f"{PREFIX}/term"
OPT_OUT: Final = f"{PREFIX}/opt-out"
REPAIR: Final = f"{PREFIX}/repair"  # on the pods of Jobs that reboot
POOL: Final = "example.com/pool"
PRODUCT: Final = "nvidia.com/gpu.product"
PEER: Final = "ToBeDeletedByClusterAutoscaler"
FAULT: Final = "KernelDeadlock"

MERGE: Final = "application/merge-patch+json"
TIMEOUT_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Reply:
    code: int
    body: Json

    @property
    def ok(self) -> bool:
        return 200 <= self.code < 300

    @property
    def version(self) -> str:
        found: str = self.body["metadata"]["resourceVersion"]
        return found


class Api:
    """Sends requests; each says in its User-Agent under which term and for which work.

    ``now`` is the server's time by its last reply, to the second: the clocks of two replicas may differ.

    Args:
        transport: to the API server.
        term: of the leadership, as of now.
        named: False leaves the work out.
    """

    def __init__(self, transport: Transport, term: Callable[[], int], *, named: bool = True) -> None:
        self._transport = transport
        self._term = term
        self._named = named
        self.now = datetime.fromtimestamp(0, UTC)

    def headers(self, work: str = "") -> dict[str, str]:
        name = f" work={work}" if work and self._named else ""
        return {"User-Agent": f"reference/1 term={self._term()}{name}"}

    async def send(
        self, method: str, path: str, body: Json | None = None, *, work: str = "",
        query: Mapping[str, str] | None = None,
    ) -> Reply:  # fmt: skip
        """Send one request; whatever the server says is the reply.

        Raises:
            TransientError: nobody knows what came of it.
        """
        headers = self.headers(work)
        if method == "PATCH":
            headers["Content-Type"] = MERGE
        sent = None if body is None else msgspec.json.encode(body)
        found = await self._transport.request(
            method, path, query=query, headers=headers, body=sent, timeout_s=TIMEOUT_S, lane=Lane.NORMAL
        )
        if "date" in found.headers:  # what stands between us and the server sends none
            self.now = parsedate_to_datetime(found.headers["date"])
        return Reply(found.status, msgspec.json.decode(found.body) if found.body else {})

    async def get(self, path: str, **query: str) -> Reply:
        return await self.send("GET", path, query=query)


def condition(node: Json, type_: str = FAULT) -> str:
    """Its status; empty where the node does not have it."""
    rows = node.get("status", {}).get("conditions") or ()
    return next((str(each["status"]) for each in rows if each["type"] == type_), "")


def taints(node: Json) -> list[Json]:
    return list(node["spec"].get("taints") or ())


def fence_of(node: Json) -> str:
    """The work for which it is fenced; empty where it is not."""
    return next((str(each.get("value", "")) for each in taints(node) if each["key"] == FENCE), "")


def work_of(node: Json) -> str:
    """The work for which it was fenced last."""
    return str((node["metadata"].get("annotations") or {}).get(WORK, ""))


def has_taint(node: Json, key: str) -> bool:
    return any(each["key"] == key for each in taints(node))


def opted_out(node: Json) -> bool:
    return OPT_OUT in (node["metadata"].get("labels") or {})


def pool_of(node: Json) -> str:
    return str((node["metadata"].get("labels") or {}).get(POOL, ""))


def product_of(node: Json) -> str:
    return str((node["metadata"].get("labels") or {}).get(PRODUCT, ""))


def boot_of(node: Json) -> str:
    return str(node.get("status", {}).get("nodeInfo", {}).get("bootID", ""))


def instant(text: str) -> datetime:
    return datetime.fromisoformat(text)
