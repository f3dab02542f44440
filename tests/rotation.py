"""An API server whose certificate gets another authority while it runs, under a name that only we ask for."""

from __future__ import annotations

import socket
import ssl
from pathlib import Path
from typing import Final

from remediator.testbed.certificates import Authority, write_private
from remediator.testbed.components import Options

NAME: Final = "api.rotated.test"  # the other components go on with the certificate of the address


def sign(folder: Path, authority: str) -> Path:
    """A new authority, and the server's certificate by it, where the API server looks for that."""
    (folder / authority).mkdir()
    pair = Authority.create(folder / authority).serving("api", hosts=[NAME])
    write_private(folder / "sni.key", pair.key)
    write_private(folder / "sni.crt", pair.certificate)
    return folder / authority / "ca.crt"


def answering(folder: Path) -> Options:
    """Of a control plane whose API server shows that certificate under ``NAME``."""
    flag = f"--tls-sni-cert-key={folder / 'sni.crt'},{folder / 'sni.key'}:{NAME}"
    return Options(extra={"kube-apiserver": (flag,)})


def presents(port: int, authority: Path) -> bool:
    """Does the server's certificate under that name verify against this authority?"""
    context = ssl.create_default_context(cafile=str(authority))
    with socket.create_connection(("127.0.0.1", port), timeout=5) as raw:
        try:
            context.wrap_socket(raw, server_hostname=NAME).close()
        except ssl.SSLCertVerificationError:
            return False
    return True
