"""Looks at a whole installation and puts all checks together. A look that fails is a finding too."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain, zip_longest
from typing import Any, Final

from msgspec import UNSET

from remediator.adapters.clock import SystemClock
from remediator.adapters.files.kinds import KINDS
from remediator.adapters.kube import neighbours as readings
from remediator.adapters.kube.discovery import Rule, check_installed, missing_rules
from remediator.adapters.kube.server_clock import ServerClock
from remediator.adapters.kube.transport import KubeTransport
from remediator.app.connection import open_connection
from remediator.app.doctor import installation, neighbours, signals
from remediator.app.doctor.finding import Finding, Level, Unseen, look, unknown, worst_first
from remediator.app.leadership import read_leadership
from remediator.app.rights import AUDIT_FIX, Rights, account_user, needed_rights
from remediator.app.settings import Settings
from remediator.app.snapshot import Snapshot, take_snapshot
from remediator.core.coverage import exporter_coverage
from remediator.core.fleet import open_books
from remediator.core.match import matches
from remediator.core.spent import spent_by_others
from remediator.model.duration import seconds
from remediator.model.keys import GROUP
from remediator.model.policy import ExporterSpec, PolicySpec
from remediator.model.words import shortened

PAGES_MAX: Final = 256


async def examine(settings: Settings) -> tuple[Finding, ...]:
    """Run every check, the worst findings first.

    Raises:
        InputError, PermanentError, TransientError: the API server can't be reached at all.
    """
    clock = ServerClock(SystemClock())
    async with open_connection(settings, clock) as transport:
        user = await transport.check_identity()
        installed = await check_installed(transport)
        found = [*installation.server(installed)]
        schemas = await _schemas(transport) if not installed.missing else {}
        found += installation.kinds(installed, schemas, KINDS)
        if not installed.missing:
            snapshot = await take_snapshot(transport, clock)
            found += await _installation(snapshot, settings, user)
            found += await _neighbours(snapshot)
        return worst_first(tuple(found))


async def _schemas(transport: KubeTransport) -> Mapping[str, Mapping[str, Any] | Unseen]:
    return {
        kind.name: await look(readings.custom_schema(transport, f"{kind.plural}.{GROUP}")) for kind in KINDS
    }


async def _installation(snapshot: Snapshot, settings: Settings, user: str) -> list[Finding]:
    transport, world = snapshot.transport, snapshot.world
    now = snapshot.clock.now()
    policy = world.policy.policy if world.policy is not None else None
    found = [*installation.policy(policy, now)]
    found += installation.leader(await read_leadership(transport, settings.namespace, settings.lease), now)
    found += installation.guards(
        {name: await look(readings.admission(transport, name)) for name in installation.GUARDS}
    )
    found += await _rights(snapshot, settings, user)
    found += await _signals(snapshot)
    found += signals.clocks(await look(readings.kubelet_beats(transport, snapshot.clock)))
    found += _budgets(snapshot)
    return found


async def _rights(snapshot: Snapshot, settings: Settings, user: str) -> list[Finding]:
    """What the controller's account may do; asked for another account where we are somebody else."""
    world = snapshot.world
    account = account_user(settings.namespace)
    who = "" if user == account else account
    needed = needed_rights(settings.namespace, world.policy_spec)
    enforcing = sorted(each.name for each in world.playbooks if each.spec.mode == "Enforce")
    asked = (
        ("Audit", needed.audit, Level.FAILURE, AUDIT_FIX),
        (
            "Enforce", needed.enforce, Level.FAILURE if enforcing else Level.NOTE,
            "kubectl apply -k deploy/overlays/enforce grants these",
        ),
        (
            "repair Jobs", needed.repair,
            Level.FAILURE if enforcing and world.policy_spec.repair is not UNSET else Level.NOTE,
            "kubectl apply -k deploy/overlays/repair-job grants these",
        ),
        *_joins_asked(world.policy_spec, needed),
    )  # fmt: skip
    found = []
    for what, rules, level, fix in asked:
        missing = await look(missing_rules(snapshot.transport, sorted(rules), who))
        if isinstance(missing, Unseen):
            return [unknown("rights", missing, f"{installation.DOCTOR_ROLE}, or: {signals.IN_POD}")]
        if missing:
            needs = f", which {', '.join(enforcing)} needs" if enforcing and rules is not needed.audit else ""
            named = shortened([str(rule) for rule in missing], 6, "; ")
            said = f"{account} lacks rights of {what}{needs}: {named}"
            found.append(Finding("rights", level, said, fix))
        else:
            found.append(Finding("rights", Level.OK, f"{account} has all {len(rules)} rights of {what}"))
    return found


def _joins_asked(policy: PolicySpec, needed: Rights) -> tuple[tuple[str, frozenset[Rule], Level, str], ...]:
    """The rights to let nodes in, where the policy wants to."""
    if policy.joins is UNSET or policy.joins.mode != "Enforce":
        return ()
    fix = "the component deploy/components/joins grants these"
    return (("joins", needed.joins, Level.FAILURE, fix),)


async def _signals(snapshot: Snapshot) -> Iterator[Finding]:
    policy = snapshot.world.policy_spec
    exporter = policy.exporter
    if exporter is UNSET:
        return signals.pages(policy, signals.NO_PAGES)
    expected = _page_nodes(snapshot, exporter)
    asked = expected[:PAGES_MAX]
    problems = await look(snapshot.read_pages(tuple(asked)))
    if isinstance(problems, Unseen):
        return iter([unknown("signals", problems, signals.IN_POD)])
    seen = snapshot.diagnoses.readings
    nodes = [node for name in asked if (node := snapshot.world.node(name)) is not None]
    coverage = exporter_coverage(
        nodes,
        lambda node: snapshot.world.census.home(node.name),
        seen,
        exporter,
        now_monotonic=snapshot.clock.monotonic(),
        period_s=seconds(exporter.period),
    )
    pages = signals.Pages(
        asked=len(asked),
        all_=len(expected),
        coverage=coverage,
        readings=tuple(seen.values()),
        problems=problems,
    )
    playbooks = snapshot.world.caches.playbooks.views()
    return chain(signals.pages(policy, pages), signals.fields(playbooks, pages.readings))


def _page_nodes(snapshot: Snapshot, exporter: ExporterSpec) -> list[str]:
    """Nodes that should have a page, so that the first ones are of all pools."""
    world = snapshot.world
    by_pool = [
        [
            name
            for name in sorted(world.census.members(pool))
            if (node := world.node(name)) is not None and matches(exporter.nodes, node.labels)
        ]
        for pool in sorted(world.pools)
    ]
    return [name for turn in zip_longest(*by_pool) for name in turn if name is not None]


def _budgets(snapshot: Snapshot) -> Iterator[Finding]:
    view = snapshot.scout.view()
    account = open_books(view, snapshot.diagnoses.faults()).account
    spent = {name: spent_by_others(view, account, pool) for name, pool in sorted(view.pools.items())}
    for name, each in spent.items():
        if each is not None:
            said = f"{each.others} nodes of {name} do not serve, allowed {each.allowed}: no other is taken"
            fix = "what is known: remediator adopt --cordoned --until DATE --reason TEXT"
            yield Finding("budget", Level.FAILURE, said, fix)
    if view.pools and not any(spent.values()):
        yield Finding("budget", Level.OK, "every pool has some of its budget left")


async def _neighbours(snapshot: Snapshot) -> list[Finding]:
    transport, clock = snapshot.transport, snapshot.clock
    policy = snapshot.world.policy_spec
    exporter = policy.exporter if policy.exporter is not UNSET else None
    sets = await look(readings.workloads(transport, clock, "DaemonSet"))
    deployments = await look(readings.workloads(transport, clock, "Deployment"))
    karpenter = await look(readings.karpenter_taints(transport, clock))
    checks = await look(readings.health_checks(transport, clock))
    found = [*neighbours.daemon_sets(sets, exporter)]
    found += neighbours.autoscalers(deployments)
    found += neighbours.node_pools(karpenter, snapshot.world.pools.values())
    both = sets if isinstance(sets, Unseen) else deployments
    if not isinstance(sets, Unseen) and not isinstance(deployments, Unseen):
        both = (*sets, *deployments)
    found += neighbours.rivals(both, checks)
    return found
