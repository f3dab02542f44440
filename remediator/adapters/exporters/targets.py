"""Which URL to fetch for which node. Pure; the pod addresses are found by the caller."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from msgspec import UNSET

from remediator.core.match import matches
from remediator.model.policy import ExporterSpec
from remediator.model.views import NodeView

PROBLEMS_MAX: Final = 32


@dataclass(frozen=True, slots=True)
class Targets:
    """``urls`` by node name, in name order. ``problems`` are lines for people, at most 32 of them.

    A selected node that has no URL is missing here, and counts as not covered elsewhere.
    """

    urls: Mapping[str, str]
    problems: tuple[str, ...]


def targets(spec: ExporterSpec, nodes: Iterable[NodeView], pod_ips: Mapping[str, Sequence[str]]) -> Targets:
    """Find the page of each node that ``spec.nodes`` selects.

    Args:
        spec: the address template, or the port and path of the pods.
        nodes: all nodes, in any order.
        pod_ips: by node name the addresses of the running exporter pods on it, as
            ``spec.pod_selector`` found them; not read where there is a template.

    Returns:
        One URL a node. Two pods on one node are a problem, and always the same one is read: two
        exporters that take turns would look like one that restarts all the time.
    """
    if spec.address and "{node}" not in spec.address and "{address}" not in spec.address:
        problem = (
            f"exporter address {spec.address!r} is the same for all nodes; write {{node}} or {{address}}"
        )
        return Targets(urls={}, problems=(problem,))
    urls: dict[str, str] = {}
    problems: list[str] = []
    for node in sorted(nodes, key=lambda node: node.name):
        if not matches(spec.nodes, node.labels):
            continue
        url, problem = _from_template(spec, node) if spec.address else _from_pod(spec, node, pod_ips)
        if url:
            urls[node.name] = url
        if problem:
            problems.append(problem)
    if len(problems) > PROBLEMS_MAX:
        problems[PROBLEMS_MAX - 1 :] = [f"and {len(problems) - PROBLEMS_MAX + 1} nodes more"]
    return Targets(urls=urls, problems=tuple(problems))


def _from_template(spec: ExporterSpec, node: NodeView) -> tuple[str, str]:
    address = next((address for type_, address in node.addresses if type_ == "InternalIP"), "")
    if "{address}" in spec.address and not address:
        return "", f"{node.name}: no InternalIP for exporter address {spec.address!r}"
    text = spec.address.replace("{node}", node.name).replace("{address}", _host(address))
    if "://" not in text:
        text = f"http://{text}"
    return (text if urlsplit(text).path else f"{text}{spec.path}"), ""


def _from_pod(spec: ExporterSpec, node: NodeView, pod_ips: Mapping[str, Sequence[str]]) -> tuple[str, str]:
    if spec.pod_selector is UNSET:
        return "", f"{node.name}: the exporter has neither an address nor a podSelector"
    found = sorted({ip for ip in pod_ips.get(node.name, ()) if ip})
    if not found:
        return "", f"{node.name}: no running exporter pod"
    problem = f"{node.name}: {len(found)} exporter pods; {found[0]} is read" if len(found) > 1 else ""
    return f"http://{_host(found[0])}:{spec.port}{spec.path}", problem


def _host(address: str) -> str:
    return f"[{address}]" if ":" in address else address
