"""What the API server says when it says no: a Status with the code, reason and words of the real one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Json = dict[str, Any]


class Refused(Exception):
    """The request changed nothing.

    Args:
        code: HTTP status.
        reason: as in ``metav1.StatusReason``; empty: left out.
        message: the server's words.
        details: of the Status: name, kind, causes and the like.
        retry_after_s: the header of that name.
    """

    def __init__(
        self,
        code: int,
        reason: str,
        message: str,
        *,
        details: Json | None = None,
        retry_after_s: int | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.details = details or {}
        self.retry_after_s = retry_after_s

    def status(self) -> Json:
        """The body of the reply."""
        body: Json = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
        }
        if self.reason:
            body["reason"] = self.reason
        details = dict(self.details)
        if self.retry_after_s is not None:
            details["retryAfterSeconds"] = self.retry_after_s
        if details:
            body["details"] = details
        return body | {"code": self.code}


def not_found(resource: str, name: str, group: str = "") -> Refused:
    """404 of one object. ``resource`` as the server writes it: ``nodes``, ``jobs.batch``."""
    details = {"name": name, "group": group, "kind": resource.partition(".")[0]}
    return Refused(404, "NotFound", f'{resource} "{name}" not found', details=_filled(details))


def unknown_path() -> Refused:
    """404 of a path that nobody serves."""
    return Refused(404, "NotFound", "the server could not find the requested resource")


def exists(resource: str, name: str, group: str = "") -> Refused:
    """409 of a creation."""
    details = {"name": name, "group": group, "kind": resource.partition(".")[0]}
    return Refused(409, "AlreadyExists", f'{resource} "{name}" already exists', details=_filled(details))


def conflict(resource: str, name: str, why: str) -> Refused:
    """409 of a write whose precondition does not hold."""
    message = f'Operation cannot be fulfilled on {resource} "{name}": {why}'
    return Refused(409, "Conflict", message, details={"name": name, "kind": resource.partition(".")[0]})


def modified(resource: str, name: str) -> Refused:
    """409 of a write from an old version."""
    why = "the object has been modified; please apply your changes to the latest version and try again"
    return conflict(resource, name, why)


def bad_request(message: str) -> Refused:
    """400."""
    return Refused(400, "BadRequest", message)


def invalid(kind: str, name: str, problems: Sequence[tuple[str, str]]) -> Refused:
    """422; ``problems`` are (field path, what is wrong with it)."""
    said = [f"{path}: {what}" for path, what in problems]
    text = said[0] if len(said) == 1 else f"[{', '.join(said)}]"
    causes = [{"reason": "FieldValueInvalid", "message": what, "field": path} for path, what in problems]
    details = {"name": name, "kind": kind.partition(".")[0], "causes": causes}
    return Refused(422, "Invalid", f'{kind} "{name}" is invalid: {text}', details=details)


def expired(message: str) -> Refused:
    """410: of a continue token, or of a version that the history does not hold any more."""
    return Refused(410, "Expired", message)


def too_new(version: int) -> Refused:
    """504: nobody has seen that version yet, after three seconds of waiting."""
    message = f"Too large resource version: {version}"
    details = {"causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}]}
    return Refused(504, "Timeout", message, details=details, retry_after_s=1)


def invalid_version(text: str) -> Refused:
    """400 of a resourceVersion that is no number."""
    return bad_request(f"Invalid value: {text!r}: resourceVersion must be a number")


def forbidden(resource: str, name: str, why: str) -> Refused:
    """403 of an admission rule."""
    return Refused(
        403,
        "Forbidden",
        f'{resource} "{name}" is forbidden: {why}',
        details={"name": name, "kind": resource.partition(".")[0]},
    )


def _filled(details: Json) -> Json:
    return {key: value for key, value in details.items() if value}
