"""Service account tokens with lives of seconds, signed with the test bed's own key.

TokenRequest gives none under ten minutes, and a test cannot wait so long for one to expire.
"""

from __future__ import annotations

import base64
import json
import os
from datetime import timedelta
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from remediator.testbed.api import Api
from remediator.testbed.certificates import write_private
from remediator.testbed.components import ISSUER
from remediator.testbed.waiting import now

# The API server takes a token for so long after its end, since clocks differ.
# Source: jwt.DefaultLeeway of go-jose, which pkg/serviceaccount/jwt.go validates with.
LEEWAY: Final = timedelta(seconds=60)
BEGAN_EARLIER: Final = timedelta(minutes=10)


class TokenMint:
    """Makes tokens of one service account.

    Args:
        api: asks for the account's uid, without which a token is refused.
        key: the private key, PEM, that the API server's tokens are signed with.
        namespace, name: of the account.
    """

    def __init__(self, api: Api, key: Path, *, namespace: str, name: str) -> None:
        private = serialization.load_pem_private_key(key.read_bytes(), password=None)
        assert isinstance(private, rsa.RSAPrivateKey)
        self._key = private
        self._account = (namespace, name)
        account = api.get(f"/api/v1/namespaces/{namespace}/serviceaccounts/{name}")
        self._uid = account["metadata"]["uid"]

    def token(self, *, life_s: float) -> str:
        """One token that is good from now on for so long, and at most ten seconds more.

        The API server remembers for ten seconds whom it has just known.

        Args:
            life_s: at most ten minutes; a longer one would only begin to be good later.
        """
        if life_s > BEGAN_EARLIER.total_seconds():
            raise ValueError(f"{life_s:g} s is too long for this mint: at most {BEGAN_EARLIER}")
        namespace, name = self._account
        ends = now() + timedelta(seconds=life_s) - LEEWAY
        claims = {
            "iss": ISSUER,
            "aud": [ISSUER],
            "sub": f"system:serviceaccount:{namespace}:{name}",
            "iat": int((ends - BEGAN_EARLIER).timestamp()),
            "nbf": int((ends - BEGAN_EARLIER).timestamp()),
            "exp": int(ends.timestamp()),
            "kubernetes.io": {"namespace": namespace, "serviceaccount": {"name": name, "uid": self._uid}},
        }
        signed = f"{_part({'alg': 'RS256', 'typ': 'JWT'})}.{_part(claims)}"
        signature = self._key.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256())
        return f"{signed}.{_encoded(signature)}"

    def put(self, path: Path, *, life_s: float) -> str:
        """Write a new token where a process reads it, in one step as a kubelet does; return it."""
        token = self.token(life_s=life_s)
        fresh = path.with_suffix(".new")
        write_private(fresh, token.encode())
        os.replace(fresh, path)
        return token


def _part(content: dict[str, object]) -> str:
    return _encoded(json.dumps(content).encode())


def _encoded(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode("ascii")
