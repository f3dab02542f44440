"""The three ways to patch an object. Neither argument is ever changed; what stays the same is shared."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import jsonpatch
import msgspec

from remediator.sim.refusal import Json, Refused, bad_request, invalid

MERGE: Final = "application/merge-patch+json"
JSON_PATCH: Final = "application/json-patch+json"
STRATEGIC: Final = "application/strategic-merge-patch+json"

# Source: the patchMergeKey tags of k8s.io/api. Lists that are not here are replaced as a whole, as are
# a node's taints and a pod's tolerations.
MERGE_KEYS: Final[Mapping[str, str]] = {
    "addresses": "type",
    "conditions": "type",
    "containerStatuses": "name",
    "containers": "name",
    "env": "name",
    "ephemeralContainers": "name",
    "hostAliases": "ip",
    "imagePullSecrets": "name",
    "initContainers": "name",
    "ownerReferences": "uid",
    "ports": "containerPort",
    "topologySpreadConstraints": "topologyKey",
    "volumeDevices": "devicePath",
    "volumeMounts": "mountPath",
    "volumes": "name",
}
MERGED_PRIMITIVES: Final = frozenset(("finalizers", "podCIDRs"))
_ORDER: Final = "$setElementOrder/"
_DROP: Final = "$deleteFromPrimitiveList/"


def apply_patch(obj: Json, body: bytes, content_type: str, *, custom: bool, what: str) -> Json:
    """The object as the patch wants it.

    Args:
        obj: as it is.
        body: of the request.
        content_type: which of the three ways.
        custom: is it a custom resource? These know no strategic merge.
        what: kind and name for refusals.

    Raises:
        Refused: the way is unknown (415), the body does not parse (400), or can't be applied (422).
    """
    way = content_type.partition(";")[0].strip()
    if way == MERGE:
        return _as_object(merged(obj, _decode(body)))
    if way == STRATEGIC and not custom:
        return _as_object(strategic(obj, _decode(body)))
    if way == JSON_PATCH:
        return _as_object(_operated(obj, _decode(body), what))
    accepted = [JSON_PATCH, MERGE] if custom else [JSON_PATCH, MERGE, STRATEGIC]
    media = ", ".join(accepted)
    message = f"the body of the request was in an unknown format - accepted media types include: {media}"
    raise Refused(415, "UnsupportedMediaType", message)


def _decode(body: bytes) -> Any:
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise bad_request(f"error decoding patch: {error}") from error


def _as_object(found: Any) -> Json:
    if not isinstance(found, dict):
        raise bad_request("a patched object must be an object")
    return found


def merged(target: Any, patch: Any) -> Any:
    """RFC 7386: null removes, an object goes deeper, all else replaces."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, dict):
            result[key] = merged(result.get(key), value)
        else:
            result[key] = value
    return result


def strategic(target: Any, patch: Any) -> Any:
    """Kubernetes' own merge: lists with a merge key are merged by it."""
    if not isinstance(patch, dict):
        return patch
    if patch.get("$patch") == "replace":
        return {key: value for key, value in patch.items() if key != "$patch"}
    result = dict(target) if isinstance(target, dict) else {}
    if (kept := patch.get("$retainKeys")) is not None:
        result = {key: value for key, value in result.items() if key in kept}
    for key, value in patch.items():
        if key.startswith(_DROP):
            gone = key.removeprefix(_DROP)
            result[gone] = [each for each in result.get(gone) or () if each not in value]
        elif not key.startswith("$"):
            _merge_field(result, key, value)
    for key, order in patch.items():
        if key.startswith(_ORDER):
            _reorder(result, key.removeprefix(_ORDER), order)
    return result


def _merge_field(result: Json, key: str, value: Any) -> None:
    if value is None:
        result.pop(key, None)
    elif isinstance(value, list) and key in MERGE_KEYS:
        result[key] = _merge_list(result.get(key) or [], value, MERGE_KEYS[key])
    elif isinstance(value, list) and key in MERGED_PRIMITIVES:
        old = result.get(key) or []
        result[key] = [*old, *(each for each in value if each not in old)]
    elif isinstance(value, dict):
        result[key] = strategic(result.get(key), value)
    else:
        result[key] = value


def _merge_list(old: list[Any], patch: list[Any], by: str) -> list[Any]:
    if any(isinstance(each, dict) and each.get("$patch") == "replace" for each in patch):
        return [each for each in patch if "$patch" not in each]
    result = list(old)
    for each in patch:
        if not isinstance(each, dict) or by not in each:
            raise bad_request(f"map: {each} does not contain declared merge key: {by}")
        at = next((index for index, known in enumerate(result) if known.get(by) == each[by]), None)
        if each.get("$patch") == "delete":
            if at is not None:
                del result[at]
        elif at is None:
            result.append(strategic({}, each))
        else:
            result[at] = strategic(result[at], each)
    return result


def _reorder(result: Json, key: str, order: list[Any]) -> None:
    found = result.get(key)
    if not isinstance(found, list):
        return
    by = MERGE_KEYS.get(key)
    wanted = [each.get(by) if isinstance(each, dict) else each for each in order]

    def place(each: Any) -> int:
        name = each.get(by) if isinstance(each, dict) else each
        return wanted.index(name) if name in wanted else len(wanted)

    result[key] = sorted(found, key=place)


def _operated(obj: Json, operations: Any, what: str) -> Any:
    kind, _, name = what.partition("/")
    try:
        return jsonpatch.JsonPatch(operations).apply(obj)
    except (jsonpatch.InvalidJsonPatch, TypeError) as error:
        raise bad_request(f"error decoding patch: {error}") from error
    except (jsonpatch.JsonPatchException, jsonpatch.JsonPointerException) as error:
        raise invalid(kind, name, [("patch", str(error))]) from error
