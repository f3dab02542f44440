"""Checks of what can be seen: exporter pages, the fields that playbooks read, clocks of nodes. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from msgspec import UNSET, Struct

from remediator.adapters.files.gpufields import IN_DEFAULT_CSV
from remediator.adapters.kube.neighbours import Beat
from remediator.app.doctor.finding import Finding, Level, Unseen, unknown
from remediator.core.dcgm import OLD_NAMES
from remediator.model.playbook import Playbook
from remediator.model.policy import PolicySpec
from remediator.model.signal import Coverage, PageReading
from remediator.model.words import shortened

# The server notes whole seconds, and a request takes its time: below this, clocks agree.
SKEW_S_MAX: Final = 3.0
IN_POD: Final = "kubectl -n remediator exec deployment/remediator -- remediator doctor sees them from inside"


class Pages(Struct, frozen=True):
    """What came of reading some nodes' pages.

    ``asked`` counts the nodes, of ``all_`` that should have one; ``coverage`` is over those asked;
    ``problems`` are one line per node without a page.
    """

    asked: int
    all_: int
    coverage: Coverage
    readings: tuple[PageReading, ...]
    problems: tuple[str, ...]


NO_PAGES: Final = Pages(0, 0, Coverage("exporter", {}, {}), (), ())


def pages(policy: PolicySpec, found: Pages) -> Iterator[Finding]:
    """Are there pages, and do enough nodes of each pool have a fresh one?"""
    if policy.exporter is UNSET:
        said = "policy.spec.exporter is not set: no XID and no GPU metric is ever seen"
        yield Finding("signals", Level.WARNING, said, "set spec.exporter of RemediationPolicy/cluster")
        return
    if not found.all_:
        said = "no node of a pool is selected by policy.spec.exporter.nodes"
        yield Finding("signals", Level.FAILURE, said, "label the GPU nodes, or change that selector")
        return
    sample = "" if found.asked == found.all_ else f" of {found.all_}"
    problems = shortened(found.problems, 3, "; ")
    if not found.readings:
        said = f"no page could be read from here, of {found.asked}{sample} nodes: {problems}"
        yield Finding("signals", Level.UNKNOWN, said, IN_POD)
        return
    low = [
        f"{pool} {found.coverage.fresh.get(pool, 0)} of {expected}"
        for pool, expected in sorted(found.coverage.expected.items())
        if found.coverage.fresh.get(pool, 0) * 100 < policy.coverage * expected
    ]
    if low:
        said = f"too few pages to act: {', '.join(low)}, needs {policy.coverage} %: {problems}"
        yield Finding("signals", Level.FAILURE, said, "does the exporter run there, and is its port open?")
    else:
        fresh = sum(found.coverage.fresh.values())
        yield Finding("signals", Level.OK, f"{fresh} pages with a GPU, of {found.asked}{sample} nodes")


def fields(playbooks: Mapping[str, Playbook], readings: Iterable[PageReading]) -> Iterator[Finding]:
    """Is each field that a playbook reads on at least one page? Pages are those of a sample."""
    seen = {name for page in readings for gpu in page.gpus for name, _ in gpu.values}
    wanted: dict[str, list[str]] = {}
    for name, playbook in sorted(playbooks.items()):
        for matcher in playbook.spec.match.any_of:
            if matcher.gpu_metric is not UNSET and playbook.spec.mode != "Disabled":
                field = matcher.gpu_metric.field
                wanted.setdefault(OLD_NAMES.get(field, field), []).append(f"{name}/{matcher.id}")
    if not readings or not wanted:
        return
    for field, readers in sorted(wanted.items()):
        if field not in seen:
            said = f"no page has {field}, which {', '.join(readers)} reads: it can see nothing"
            yield Finding("fields", Level.WARNING, said, _csv_fix(field))
    if seen.issuperset(wanted):
        yield Finding("fields", Level.OK, f"the pages have all {len(wanted)} metrics that playbooks read")


def clocks(found: tuple[Beat, ...] | Unseen) -> Iterator[Finding]:
    """Does each node's clock agree with the API server's? Soaks and Events of a node are told by it."""
    if isinstance(found, Unseen):
        yield unknown("clocks", found, "bind the ClusterRole remediator-doctor, which may list these Leases")
        return
    if not found:
        yield Finding("clocks", Level.UNKNOWN, "no kubelet's Lease carries both clocks")
        return
    # What is noted in whole seconds was written anywhere within that second.
    skews = {beat.node: (beat.said - beat.noted).total_seconds() - 0.5 for beat in found}
    wrong = {node: skew for node, skew in skews.items() if abs(skew) > SKEW_S_MAX}
    if not wrong:
        most = max(map(abs, skews.values()))
        yield Finding("clocks", Level.OK, f"{len(skews)} nodes' clocks agree within {most + 0.5:.1f} s")
        return
    worst = sorted(wrong, key=lambda node: -abs(wrong[node]))
    named = shortened([f"{node} {wrong[node]:+.0f} s" for node in worst], 3)
    said = f"{len(wrong)} of {len(skews)} nodes' clocks differ from the API server's: {named}"
    yield Finding("clocks", Level.WARNING, said, "look at chrony or ntpd there")


def _csv_fix(field: str) -> str:
    if field in IN_DEFAULT_CSV:
        return "it is in dcgm-exporter's default list: does the site's own CSV leave it out?"
    help_ = field.removeprefix("DCGM_FI_DEV_").replace("_", " ").lower()
    return f"add to the exporter's CSV: {field}, gauge, {help_}"
