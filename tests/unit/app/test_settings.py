"""What a process is told from outside: refused whole, with what to write instead."""

from __future__ import annotations

from pathlib import Path

import pytest

from remediator.app.settings import Settings
from remediator.errors import InputError


def test_everything_that_is_wrong_is_told_at_once():
    with pytest.raises(InputError) as caught:
        Settings(namespace="", port=70_000, renew_s=20.0)

    told = str(caught.value)
    assert "name the namespace" in told
    assert "70000 is no port" in told
    assert "retry < renew deadline < lease" in told


def test_tokens_are_not_asked_for_in_clear_text():
    """On loopback they stay on the machine; anywhere else they would be read on the way."""
    with pytest.raises(InputError, match=r"tls-dir.*clear text"):
        Settings(review_tokens=True)

    assert Settings(review_tokens=True, host="127.0.0.1").tls_dir is None
    assert Settings(review_tokens=True, tls_dir=Path("/tls")).review_tokens
