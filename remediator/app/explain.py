"""Answers ``why`` and ``plan`` for one node: the very gates and books of the leader, read afresh.

It writes nothing. What the leader knows and this process can't see is named in ``Answer.notes`` and
``Judged.unjudged``; it never counts as good or bad.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from msgspec import UNSET, Struct
from msgspec.structs import replace

from remediator.app.controller import OWN_PODS
from remediator.app.leadership import Leadership, read_leadership
from remediator.app.lookup import NotFoundError, not_found
from remediator.app.settings import Settings
from remediator.app.snapshot import Snapshot
from remediator.core.conditions import overrides, unjudged
from remediator.core.diagnose import Diagnosis
from remediator.core.fleet import open_books, open_case
from remediator.core.gates import Case, evaluate
from remediator.core.plan import Plan, build_plan
from remediator.core.request import FleetView, Request, uses_exporter
from remediator.errors import PermanentError
from remediator.model.decision import GateVerdict
from remediator.model.ledger import ManagedNodeStatus, ManualRequest
from remediator.model.playbook import PlaybookInForce
from remediator.model.remediation import Remediation
from remediator.model.signal import Fault, PageTrouble
from remediator.model.views import ConditionView, NodeView

PAGES_MAX = 512
OUT_OF_REACH = "the exporters are out of reach from here; only the leader knows"


class Judged(Struct, frozen=True):
    """One playbook on the node, in front of every gate.

    ``fault`` is None where a person's ``--playbook`` asks. ``unjudged`` maps gates, whose answer
    needs what can't be seen from here, to why. ``asked`` is the first gate that would stop a
    person's request, or None.
    """

    playbook: PlaybookInForce
    fault: Fault | None
    case: Case
    verdicts: tuple[GateVerdict, ...]
    unjudged: Mapping[str, str]
    plan: Plan
    asked: GateVerdict | None

    @property
    def stop(self) -> GateVerdict | None:
        """The first gate that stops, of those that could be judged."""
        return next((each for each in self.verdicts if not each.ok and each.gate not in self.unjudged), None)


class Answer(Struct, frozen=True, kw_only=True):
    """Everything that is to be said about one node at one instant."""

    now: datetime
    term: int
    node: NodeView
    machine: str
    pool: str
    diagnosis: Diagnosis
    explanations: tuple[str, ...]
    judged: tuple[Judged, ...]
    run: Remediation | None
    ledger: ManagedNodeStatus | None
    recorded: Remediation | None  # Audit's newest record of a fault that is still there
    leadership: Leadership
    view: FleetView
    notes: tuple[str, ...]
    page: PageTrouble | None = None  # what is wrong with the node's, where pages can be read from here
    unjudged: tuple[ConditionView, ...] = ()  # of the node: no table and no playbook knows them


def find_node(snapshot: Snapshot, name: str) -> NodeView:
    """The Node of that name.

    Raises:
        NotFoundError: there is none; the message names near ones.
    """
    node = snapshot.world.node(name)
    if node is None:
        known = snapshot.world.nodes
        raise not_found("node", name, known, f"{len(known)} nodes: kubectl get nodes")
    return node


def find_playbook(snapshot: Snapshot, name: str) -> PlaybookInForce:
    """The playbook of that name, in the version that is followed.

    Raises:
        NotFoundError: there is none, or none of its versions can be followed.
    """
    found = {each.name: each for each in snapshot.world.playbooks}
    if name in found:
        return found[name]
    if snapshot.world.caches.playbooks.get(name) is not None:
        raise NotFoundError(f"playbook {name!r} can't be followed: kubectl describe rpb {name}")
    raise not_found("playbook", name, found, f"there are: {', '.join(sorted(found)) or 'none'}")


async def explain(
    snapshot: Snapshot,
    settings: Settings,
    name: str,
    *,
    playbook: str = "",
    by: str = "",
    return_to: str = "",
) -> Answer:
    """Judge one node.

    Args:
        name: of the Node.
        playbook: judge this one, whether its fault is there or not; else one per fault.
        by: the person who asks for it; empty: it is judged as starting by itself.
        return_to: of the playbook only the way back of a machine that is out, into this pool.

    Raises:
        NotFoundError: no such node or playbook, or the playbook does not select the node.
        PermanentError, TransientError: it could not be read.
    """
    world = snapshot.world
    node = find_node(snapshot, name)
    asked = find_playbook(snapshot, playbook) if playbook else None
    if asked is not None and not snapshot.scout.requests.may_ask(node, asked):
        raise NotFoundError(f"playbook {playbook!r} does not select node {name!r}: see its spec.nodes")
    pages = await _read_pages(snapshot, node)
    notes = [*pages.notes]
    own_nodes = await _own_nodes(snapshot, settings, notes)
    snapshot.scout.own_nodes = lambda: own_nodes
    await snapshot.witnesses.look(snapshot.scout.silent_nodes)
    view = snapshot.scout.view()
    if not pages.seen:
        view = replace(view, uncovered={}, fleetwide=replace(view.fleetwide, blind=frozenset()))
    diagnosis = snapshot.diagnoses.of(name)
    assert diagnosis is not None, "every node of a snapshot was looked at"
    machine = world.machine(node)
    demand = ManualRequest(playbook=playbook, by=by, at="", return_to=return_to)
    judged = tuple(
        _judge(snapshot, view, _request(snapshot, view, node, each, fault, demand), fault, pages)
        for each, fault in _wanted(snapshot, diagnosis, asked)
    )
    return Answer(
        now=view.now,
        term=view.term,
        node=node,
        machine=machine,
        pool=view.census.home(name) or "",
        diagnosis=diagnosis,
        explanations=snapshot.diagnoses.explain(name),
        judged=judged,
        run=next((run for _, run in sorted(view.runs.items()) if run.spec.machine == machine), None),
        ledger=view.ledgers.get(machine),
        recorded=_recorded(snapshot, machine, view),
        leadership=await read_leadership(snapshot.transport, settings.namespace, settings.lease),
        view=view,
        notes=tuple(notes),
        page=_page_trouble(snapshot, name, pages),
        unjudged=unjudged(node.conditions, overrides(view.policy.conditions), _read_types(snapshot)),
    )


def _page_trouble(snapshot: Snapshot, name: str, pages: _Pages) -> PageTrouble | None:
    expected = snapshot.world.policy_spec.exporter is not UNSET and snapshot.diagnoses.expects_page(name)
    return snapshot.diagnoses.page_trouble(name) if expected and pages.seen else None


def _read_types(snapshot: Snapshot) -> frozenset[str]:
    matchers = (each for playbook in snapshot.world.playbooks for each in playbook.spec.match.any_of)
    return frozenset(each.node_condition.type for each in matchers if each.node_condition is not UNSET)


class _Pages(Struct, frozen=True):
    """What reading exporter pages came to. ``unjudged``: why coverage can't be judged, or empty."""

    notes: tuple[str, ...] = ()
    seen: bool = True
    unjudged: str = ""


async def _read_pages(snapshot: Snapshot, node: NodeView) -> _Pages:
    """Read the pages of the node, the buffers and its pool, at most ``PAGES_MAX``."""
    world = snapshot.world
    if world.policy_spec.exporter is UNSET:
        return _Pages()
    census = world.census
    buffers = [name for name, pool in sorted(world.pools.items()) if pool.spec.role == "Buffer"]
    pools = (*buffers, census.home(node.name) or "")
    others = [name for pool in pools for name in sorted(census.members(pool))]
    wanted = tuple(dict.fromkeys((node.name, *others)))
    try:
        problems = await snapshot.read_pages(wanted[:PAGES_MAX])
    except PermanentError as error:
        return _Pages((f"exporter pages not read: {error}",), seen=False, unjudged=OUT_OF_REACH)
    if not snapshot.diagnoses.readings:
        example = f", for example {problems[0]}" if problems else ""
        note = f"no exporter page can be read from here{example}; what the ledger knows is used"
        return _Pages((note,), seen=False, unjudged=OUT_OF_REACH)
    cut = f"only {PAGES_MAX} of {len(wanted)} pages were read; the leader reads all"
    return _Pages(problems[:3], unjudged=cut if len(wanted) > PAGES_MAX else "")


async def _own_nodes(snapshot: Snapshot, settings: Settings, notes: list[str]) -> frozenset[str]:
    try:
        return frozenset(await snapshot.reader.pod_addresses(settings.namespace, OWN_PODS))
    except PermanentError as error:
        notes.append(f"where our own pods run is not known: {error}")
        return frozenset()


def _wanted(
    snapshot: Snapshot, diagnosis: Diagnosis, asked: PlaybookInForce | None
) -> list[tuple[PlaybookInForce, Fault | None]]:
    if asked is not None:
        fault = next((each for each in diagnosis.faults if each.playbook == asked.name), None)
        return [(asked, fault)]
    playbooks = {each.name: each for each in snapshot.world.playbooks}
    return [(playbooks[each.playbook], each) for each in diagnosis.faults if each.playbook in playbooks]


def _request(
    snapshot: Snapshot,
    view: FleetView,
    node: NodeView,
    playbook: PlaybookInForce,
    fault: Fault | None,
    demand: ManualRequest,
) -> Request:
    """The request as the leader would put it, so that gates and hash come out the same."""
    asked = snapshot.scout.requests.asked(node, playbook, demand, view.now)
    if asked.by or asked.already_out:
        return asked
    since = fault.first_seen if fault is not None else view.now
    return replace(asked, trigger="Fault", since=since)


def _judge(
    snapshot: Snapshot, view: FleetView, request: Request, fault: Fault | None, pages: _Pages
) -> Judged:
    faults = snapshot.diagnoses.faults()
    others = [each for each in snapshot.scout.requests.all(faults, view) if each.machine != request.machine]
    case = open_case(view, open_books(view, faults).account, request, (*others, request))
    unjudged = {}
    if pages.unjudged and uses_exporter(request.playbook.spec) and not request.by:
        unjudged["coverage"] = pages.unjudged
    spare = case.spare.node if case.spare is not None else None
    return Judged(
        playbook=request.playbook,
        fault=fault,
        case=case,
        verdicts=evaluate(case),
        unjudged=unjudged,
        plan=build_plan(request, case.pool, spare),
        asked=next((each for each in evaluate(_asked(case)) if not each.ok), None),
    )


def _asked(case: Case) -> Case:
    """The same case, asked for by a person."""
    by, trigger = case.request.by or "a person", case.request.trigger
    asked = trigger if case.request.already_out else "Manual"
    return replace(case, request=replace(case.request, by=by, trigger=asked))


def _recorded(snapshot: Snapshot, machine: str, view: FleetView) -> Remediation | None:
    runs = [
        run
        for run in snapshot.world.ended_runs.values()
        if run.spec.machine == machine and (machine, run.spec.fault_class) in view.audited
    ]
    return max(runs, key=lambda run: run.metadata.creation_timestamp, default=None)
