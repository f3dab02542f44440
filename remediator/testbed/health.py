"""Asks one component whether it is ready."""

from __future__ import annotations

import http.client
import ssl
from urllib.parse import urlsplit

BODY_BYTES_MAX = 4096


def context(authority: bytes) -> ssl.SSLContext:
    """Return a TLS context that trusts one authority (PEM) and nothing else."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.load_verify_locations(cadata=authority.decode("ascii"))
    return made


def why_not_ready(url: str, trust: ssl.SSLContext, *, timeout_s: float = 2.0) -> str | None:
    """Return what is wrong, or None if the answer is exactly ``ok``."""
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or 0
    connection: http.client.HTTPConnection
    if parts.scheme == "https":
        connection = http.client.HTTPSConnection(host, port, timeout=timeout_s, context=trust)
    else:
        connection = http.client.HTTPConnection(host, port, timeout=timeout_s)
    try:
        connection.request("GET", parts.path)
        response = connection.getresponse()
        body = response.read(BODY_BYTES_MAX).decode("utf-8", errors="replace").strip()
    except (OSError, http.client.HTTPException) as error:
        return f"{url}: {str(error) or type(error).__name__}"
    finally:
        connection.close()
    if response.status == http.HTTPStatus.OK and body == "ok":
        return None
    return f"{url}: {response.status} {body}"
