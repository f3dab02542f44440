"""A small blocking Kubernetes client for the harness: it builds scenes and looks at what came of them.

Independent of the product's transport on purpose: a bug there must not hide itself by being in the
judge's eyes as well. Never used by the controller.
"""

from __future__ import annotations

import http.client
import json
import weakref
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from time import sleep
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

from remediator.errors import RemediatorError
from remediator.testbed.certificates import Authority
from remediator.testbed.health import context
from remediator.testbed.kubeconfig import Access, read, write
from remediator.testbed.waiting import WaitExpiredError, monotonic, wait_until

Json = dict[str, Any]
_Idle = tuple[http.client.HTTPSConnection, float]  # and when it was used last

TIMEOUT_S: Final = 30.0
PAGE_LIMIT: Final = 500
PAGES_MAX: Final = 1000
BODY_BYTES_MAX: Final = 256 << 20
# The server closes idle connections after 90 s; a write on one that just closed would be lost.
IDLE_MAX_S: Final = 60.0
IDLE_CONNECTIONS_MAX: Final = 64
AGAIN_S: Final = 0.5
MERGE_PATCH: Final = "application/merge-patch+json"
APPLY_PATCH: Final = "application/apply-patch+yaml"


class ApiError(RemediatorError):
    """The API server answered with an error.

    ``status`` is the HTTP status, ``reason`` Kubernetes' word for it, ``body`` the Status object.
    """

    def __init__(self, method: str, path: str, status: int, body: Json) -> None:
        self.status = status
        self.reason = str(body.get("reason", ""))
        self.body = body
        super().__init__(f"{method} {path}: {status} {self.reason}: {body.get('message', '')}")


class ConnectionFailedError(RemediatorError):
    """No complete answer came. A write may or may not have happened."""


class Api:
    """One identity at one API server. Safe to share between threads; idle connections are kept and reused."""

    def __init__(
        self,
        access: Access,
        *,
        authority: Authority | None = None,
        user_agent: str = "remediator-testbed",
        patience_s: float = 0.0,
    ) -> None:
        """Make a client; nothing is sent yet.

        Args:
            access: server and credentials.
            authority: signs the certificates of ``as_user``; None where that is not needed.
            user_agent: stands in the audit log.
            patience_s: for how long a call is sent again while the server is away; only for calls
                that may be done twice.
        """
        self.access = access
        self._authority = authority
        self._user_agent = user_agent
        self._patience_s = patience_s
        self._trust = context(access.authority)
        if access.pair:
            access.pair.load_into(self._trust)
        self._idle: deque[_Idle] = deque(maxlen=IDLE_CONNECTIONS_MAX)
        # A client that is dropped closes its sockets, so that nobody has to remember to.
        weakref.finalize(self, _close_all, self._idle)

    def patient(self, patience_s: float) -> Api:
        """The same identity, for what goes on while the API server is away, such as machines."""
        return Api(self.access, authority=self._authority, user_agent=self._user_agent, patience_s=patience_s)

    @classmethod
    def from_kubeconfig(cls, path: Path, *, authority: Authority | None = None) -> Api:
        """Make a client from a kubeconfig that the test bed wrote."""
        return cls(read(path), authority=authority)

    # ---- one object

    def get(self, path: str, query: Mapping[str, str] | None = None) -> Json:
        """Return the object or list at a path such as ``/api/v1/nodes/node-1``; ApiError 404 if missing."""
        return self._call("GET", path, query=query)

    def find(self, path: str) -> Json | None:
        """Return the object at the path, or None if there is none."""
        try:
            return self.get(path)
        except ApiError as error:
            if error.status == http.HTTPStatus.NOT_FOUND:
                return None
            raise

    def create(self, path: str, body: Json, *, subresource: str = "") -> Json:
        """POST to a collection (or to a subresource of an object) and return the server's answer."""
        return self._call("POST", _below(path, subresource), body=body)

    def replace(self, path: str, body: Json, *, subresource: str = "", manager: str = "") -> Json:
        """PUT an object; with a ``metadata.resourceVersion`` in it, 409 if somebody was faster."""
        query = {"fieldManager": manager} if manager else {}
        return self._call("PUT", _below(path, subresource), query=query, body=body)

    def merge_patch(self, path: str, body: Json, *, subresource: str = "") -> Json:
        """Merge-patch an object or one of its subresources; lists are replaced whole."""
        return self._call("PATCH", _below(path, subresource), body=body, content_type=MERGE_PATCH)

    def apply(self, path: str, body: Json, *, manager: str = "testbed") -> Json:
        """Server-side apply, forced: create the object or make it so."""
        query = {"fieldManager": manager, "force": "true"}
        return self._call("PATCH", path, query=query, body=body, content_type=APPLY_PATCH)

    def delete(
        self, path: str, *, grace_s: int | None = None, uid: str = "", background: bool = True
    ) -> Json:
        """Delete one object.

        Args:
            path: of the object.
            grace_s: overrides the pod's own grace period; 0 removes the object at once.
            uid: refuse (409) if the object is another one by now.
            background: False waits for dependents first (foreground deletion).
        """
        options: Json = {"propagationPolicy": "Background" if background else "Foreground"}
        if grace_s is not None:
            options["gracePeriodSeconds"] = grace_s
        if uid:
            options["preconditions"] = {"uid": uid}
        return self._call("DELETE", path, body=options)

    def remove(self, path: str, *, grace_s: int | None = None) -> None:
        """Delete one object unless it is gone: another hand, such as a garbage collector, may be faster."""
        try:
            self.delete(path, grace_s=grace_s)
        except ApiError as error:
            if error.status != http.HTTPStatus.NOT_FOUND:
                raise

    def delete_all(self, path: str, *, label_selector: str = "") -> Json:
        """Delete a collection, such as ``/api/v1/namespaces/default/pods``."""
        query = {"labelSelector": label_selector} if label_selector else None
        return self._call("DELETE", path, query=query, body={"propagationPolicy": "Background"})

    def evict(self, namespace: str, name: str, *, uid: str = "") -> int:
        """Evict a pod and return the HTTP status: 201 accepted, 429 refused by a budget, 404, 500.

        Refusals are values here, since most stories are about them.
        """
        options: Json = {"preconditions": {"uid": uid}} if uid else {}
        metadata = {"name": name, "namespace": namespace}
        body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": metadata, "deleteOptions": options}
        try:
            self.create(f"/api/v1/namespaces/{namespace}/pods/{name}", body, subresource="eviction")
        except ApiError as error:
            return error.status
        return int(http.HTTPStatus.CREATED)

    # ---- many objects

    def list(self, path: str, *, label_selector: str = "", field_selector: str = "") -> list[Json]:
        """Return every object of a collection, page by page, in the server's order (name).

        Raises:
            ApiError: 410 where the list took so long that its version was compacted.
        """
        query = {"limit": str(PAGE_LIMIT)}
        if label_selector:
            query["labelSelector"] = label_selector
        if field_selector:
            query["fieldSelector"] = field_selector
        items: list[Json] = []
        for _ in range(PAGES_MAX):
            page = self.get(path, query)
            items += page.get("items") or []
            token = page.get("metadata", {}).get("continue")
            if not token:
                return items
            query["continue"] = token
        raise RemediatorError(f"{path}: over {PAGES_MAX} pages of {PAGE_LIMIT}")

    # ---- waiting

    def wait_for(
        self,
        path: str,
        predicate: Callable[[Json], bool],
        *,
        timeout_s: float,
        what: str = "",
        every_s: float = 0.1,
    ) -> Json:
        """Poll the path until ``predicate`` holds for what is there; missing objects are waited for.

        Raises:
            WaitExpiredError: it did not hold within ``timeout_s``; names what was seen last.
        """
        seen: Json | None = None

        def look() -> Json | None:
            nonlocal seen
            seen = self.find(path)
            return seen if seen is not None and predicate(seen) else None

        return wait_until(
            look,
            timeout_s=timeout_s,
            every_s=every_s,
            what=what or f"the awaited state of {path}",
            detail=lambda: f"last seen {json.dumps(seen)[-1500:]}",
        )

    def wait_gone(self, path: str, *, timeout_s: float, uid: str = "") -> None:
        """Poll until there is no object at the path, or another one than ``uid``."""

        def look() -> bool:
            found = self.find(path)
            return found is None or bool(uid and found["metadata"]["uid"] != uid)

        wait_until(look, timeout_s=timeout_s, every_s=0.1, what=f"the end of {path}")

    # ---- other identities

    def as_user(self, name: str, groups: Sequence[str] = ()) -> Api:
        """Return a client of the same server with a new client certificate for this person.

        ``name`` becomes the user name that RBAC and the audit log see.
        """
        if self._authority is None:
            raise RemediatorError(
                f"no authority to sign a certificate for {name}; take the control plane's client"
            )
        access = Access(
            server=self.access.server,
            authority=self.access.authority,
            pair=self._authority.client(name, groups),
        )
        return Api(access, authority=self._authority, user_agent=self._user_agent)

    def service_account_kubeconfig(
        self, namespace: str, name: str, path: Path, *, expires_s: int = 3600, server: str = ""
    ) -> Path:
        """Write a kubeconfig with a fresh token of a service account, by TokenRequest.

        Args:
            namespace: of the account, which must exist.
            name: of the account.
            path: where to write (mode 0600).
            expires_s: life of the token, at least 600; the server accepts it up to 60 s longer.
            server: another URL to put in, such as a fault proxy's.
        """
        token = self.service_account_token(namespace, name, expires_s=expires_s)
        access = Access(server=server or self.access.server, authority=self.access.authority, token=token)
        write(path, f"system:serviceaccount:{namespace}:{name}", access, namespace=namespace)
        return path

    def service_account_token(self, namespace: str, name: str, *, expires_s: int = 3600) -> str:
        """Return a fresh token of a service account (TokenRequest)."""
        body = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"expirationSeconds": expires_s},
        }
        account = f"/api/v1/namespaces/{namespace}/serviceaccounts/{name}"
        return str(self.create(account, body, subresource="token")["status"]["token"])

    # ---- the wire

    def _call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Json | None = None,
        content_type: str = "application/json",
    ) -> Json:
        target = f"{path}?{urlencode(query)}" if query else path
        headers = {"Accept": "application/json", "User-Agent": self._user_agent}
        if self.access.token:
            headers["Authorization"] = f"Bearer {self.access.token}"
        payload = None
        if body is not None:
            payload = json.dumps(body).encode()
            headers["Content-Type"] = content_type
        status, content = self._insist(method, target, payload, headers)
        answer = _decoded(content)
        if status >= http.HTTPStatus.BAD_REQUEST:
            raise ApiError(method, target, status, answer)
        return answer

    def _insist(
        self, method: str, target: str, payload: bytes | None, headers: Mapping[str, str]
    ) -> tuple[int, bytes]:
        until = monotonic() + self._patience_s
        while True:
            try:
                status, content = self._exchange(method, target, payload, headers)
                if status < http.HTTPStatus.INTERNAL_SERVER_ERROR or monotonic() >= until:
                    return status, content
            except (OSError, http.client.HTTPException) as error:
                if monotonic() >= until:
                    what = str(error) or type(error).__name__
                    raise ConnectionFailedError(f"{method} {target}: {what}") from error
            sleep(AGAIN_S)

    def _exchange(
        self, method: str, target: str, payload: bytes | None, headers: Mapping[str, str]
    ) -> tuple[int, bytes]:
        connection = self._connection()
        try:
            connection.request(method, target, body=payload, headers=dict(headers))
            response = connection.getresponse()
            content = response.read(BODY_BYTES_MAX)
            if not response.isclosed():
                raise http.client.HTTPException(f"body over {BODY_BYTES_MAX} bytes")
        except BaseException:
            connection.close()
            raise
        if len(self._idle) < IDLE_CONNECTIONS_MAX:
            self._idle.append((connection, monotonic()))
        else:
            connection.close()
        return response.status, content

    def _connection(self) -> http.client.HTTPSConnection:
        while True:
            try:
                connection, used_at = self._idle.pop()
            except IndexError:
                break
            if monotonic() - used_at < IDLE_MAX_S:
                return connection
            connection.close()
        parts = urlsplit(self.access.server)
        return http.client.HTTPSConnection(
            parts.hostname or "", parts.port, timeout=TIMEOUT_S, context=self._trust
        )

    def close(self) -> None:
        """Close the idle connections; the next call opens another."""
        _close_all(self._idle)


def _close_all(idle: deque[_Idle]) -> None:
    while idle:
        idle.pop()[0].close()


def _below(path: str, subresource: str) -> str:
    return f"{path}/{subresource}" if subresource else path


def _decoded(content: bytes) -> Json:
    try:
        answer = json.loads(content)
    except ValueError:
        return {"message": content[:512].decode("utf-8", errors="replace")}
    return answer if isinstance(answer, dict) else {"message": str(answer)[:512]}


__all__ = ["Api", "ApiError", "ConnectionFailedError", "Json", "WaitExpiredError"]
