"""Builds the controller out of its parts and runs it until it is told to stop."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Final, TypedDict

import structlog

from remediator import __version__
from remediator.adapters.clock import SystemClock
from remediator.adapters.dice import draw_seed
from remediator.adapters.exporters.fetch import HttpPages
from remediator.adapters.exporters.source import ExporterSource
from remediator.adapters.kube.caller import STANDBY, Caller
from remediator.adapters.kube.discovery import check_installed
from remediator.adapters.kube.errors import INSTALL_CRDS
from remediator.adapters.kube.lease import Election, LeaseSettings
from remediator.adapters.kube.reader import KubeReader
from remediator.adapters.kube.records import KubeRecords
from remediator.adapters.kube.reviewer import TokenReviewer
from remediator.adapters.kube.server_clock import ServerClock
from remediator.adapters.kube.writer import KubeWriter
from remediator.adapters.telemetry.certificate import ServingCertificate
from remediator.adapters.telemetry.health import HealthServer
from remediator.adapters.telemetry.metrics import Metrics
from remediator.adapters.ticks import SchedulerTicks
from remediator.app.connection import open_connection
from remediator.app.feeds import Feeds
from remediator.app.metered import Metered
from remediator.app.rights import require_rights
from remediator.app.settings import Settings
from remediator.core.steps.drain import POD_ANNOTATIONS
from remediator.errors import ContractError, PermanentError
from remediator.model.keys import API_VERSION
from remediator.model.meta import LabelSelector
from remediator.model.policy import PolicySpec
from remediator.ports import Clock, Pages, Telemetry, Ticks, Transport
from remediator.runtime.brake import Brake
from remediator.runtime.controller import Controller, Parts
from remediator.runtime.diagnosis import Diagnoses
from remediator.runtime.events import Events
from remediator.runtime.fleet_loop import FleetLoop
from remediator.runtime.gauges import Gauges
from remediator.runtime.health import Health
from remediator.runtime.housekeeping import Housekeeping
from remediator.runtime.joins import Joins
from remediator.runtime.ledgers import Ledgers
from remediator.runtime.logbook import Logbook
from remediator.runtime.newcomers import Newcomers
from remediator.runtime.observer import Observer
from remediator.runtime.report import Reporter
from remediator.runtime.run_pass import RunPass, repairs_before
from remediator.runtime.scout import Scout
from remediator.runtime.statuses import Statuses
from remediator.runtime.sweep import Sweep
from remediator.runtime.takeover import Takeover
from remediator.runtime.witness import Witnesses
from remediator.runtime.workers import Workers
from remediator.runtime.world import World

OWN_PODS: Final = LabelSelector(match_labels={"app.kubernetes.io/name": "remediator"})
LOST_LEADERSHIP: Final = 1
LEASE_REQUEST_S_MAX: Final = 3.0

_log = structlog.get_logger(__name__)


class Shared(TypedDict):
    """What nearly every part is given."""

    clock: Clock
    telemetry: Telemetry


@dataclass(frozen=True, slots=True, kw_only=True)
class Doors:
    """Everything that reaches outside: connection, reads, and the two doors for writes."""

    clock: ServerClock
    rng: Random
    transport: Transport
    caller: Caller
    reader: KubeReader
    writer: KubeWriter
    records: KubeRecords
    election: Election
    metrics: Metrics
    brake: Brake


@dataclass(frozen=True, slots=True, kw_only=True)
class Outside:
    """What a controller lives on: time, dice, a server, pages and ticks; real ones or simulated."""

    clock: ServerClock
    rng: Random
    transport: Transport
    caller: Caller
    pages: Pages
    ticks: Ticks


def _as_it_is(connection: Transport) -> Transport:
    return connection


async def run(
    settings: Settings,
    *,
    wrap: Callable[[Transport], Transport] = _as_it_is,
    machine: Clock | None = None,
) -> int:
    """Run the controller; the process' exit code.

    Args:
        settings: of this process.
        wrap: stands between the controller and its connection, for whoever tests what it does
            when that fails.
        machine: whose wall time counts until the API server has answered; None: the real one.

    Raises:
        InputError, PermanentError, TransientError: it can't start; the message names the fix.
    """
    clock = ServerClock(machine or SystemClock())
    # Whoever wants the same pauses again starts it with this seed; what the network does, no seed repeats.
    seed = settings.seed or draw_seed()
    _log.info("starting", version=__version__, identity=settings.identity, seed=seed)
    caller = open_caller(settings, seed)
    async with open_connection(settings, clock, caller) as opened, open_pages() as pages:
        target = opened.describe()
        user = await opened.check_identity()
        _log.info("connected", server=target.server, context=target.context, user=user)
        outside = Outside(
            clock=clock,
            rng=Random(seed),
            transport=wrap(opened),
            caller=caller,
            pages=pages,
            ticks=SchedulerTicks(on_error=_end_on_bug),
        )
        controller, doors = await prepare(settings, outside)
        return await _serve(settings, controller, doors)


def open_caller(settings: Settings, seed: int) -> Caller:
    """Who every request of this process says that it is."""
    return Caller(STANDBY, rng=Random(f"{seed} {settings.identity}"))


async def prepare(settings: Settings, outside: Outside) -> tuple[Controller, Doors]:
    """Build the controller once everything that it needs is there; nothing runs yet.

    Raises:
        PermanentError, TransientError: a kind or a right is missing, or the server does not say.
    """
    clock, brake = outside.clock, Brake(outside.clock)
    transport = Metered(outside.transport, brake, clock)
    await require_installed(transport)
    await require_rights(transport, settings.namespace, review_tokens=settings.review_tokens)
    doors = open_doors(settings, clock, transport, brake, caller=outside.caller, rng=outside.rng)
    seen = await doors.reader.policy()
    spec = seen.policy.spec if seen is not None else PolicySpec()
    feeds = Feeds(transport, clock=clock, rng=doors.rng, policy=spec)
    return build(settings, doors, feeds, outside), doors


async def require_installed(transport: Transport) -> None:
    """Refuse to start without our kinds, and name the command that installs them.

    Raises:
        PermanentError: a kind is missing.
    """
    installed = await check_installed(transport)
    if installed.missing:
        kinds = ", ".join(name for name in installed.missing if "/" not in name)
        raise PermanentError(f"the API server does not know {kinds} of {API_VERSION}: {INSTALL_CRDS}")


def open_doors(
    settings: Settings,
    clock: ServerClock,
    transport: Transport,
    brake: Brake,
    *,
    caller: Caller,
    rng: Random,
) -> Doors:
    """The doors of a leader: a write leaves only while the Lease is valid."""
    election = Election(
        transport=transport,
        clock=clock,
        rng=rng,
        identity=settings.identity,
        namespace=settings.namespace,
        name=settings.lease,
        settings=lease_settings(settings),
    )

    def may_write() -> str | None:
        return None if election.is_leader(clock.monotonic()) else "the Lease is not ours any more"

    return Doors(
        clock=clock,
        rng=rng,
        transport=transport,
        caller=caller,
        reader=open_reader(transport, clock),
        writer=KubeWriter(transport, may_write=may_write),
        records=KubeRecords(transport, may_write=may_write, instance=settings.identity),
        election=election,
        metrics=Metrics(),
        brake=brake,
    )


def lease_settings(settings: Settings) -> LeaseSettings:
    """The times of the election; one request leaves time for a second try before the deadline."""
    request_s = min(LEASE_REQUEST_S_MAX, settings.renew_s / 2)
    return LeaseSettings(settings.lease_s, settings.renew_s, settings.retry_s, request_timeout_s=request_s)


def build(settings: Settings, doors: Doors, feeds: Feeds, outside: Outside) -> Controller:
    """Put all parts together; nothing runs yet."""

    async def own_pods() -> frozenset[str]:
        return frozenset(await doors.reader.pod_addresses(settings.namespace, OWN_PODS))

    controller = Controller(
        build_parts(doors, feeds, outside),
        reflectors=feeds.jobs(),
        election=doors.election,
        records=doors.records,
        reader=doors.reader,
        clock=doors.clock,
        telemetry=doors.metrics,
        identity=settings.identity,
        own_pods=own_pods,
    )
    controller.on_term = doors.caller.take_term
    return controller


def build_parts(doors: Doors, feeds: Feeds, outside: Outside) -> Parts:
    """Every loop of the controller, each with the few others that it talks to."""
    clock, metrics, records, reader = doors.clock, doors.metrics, doors.records, doors.reader
    shared: Shared = {"clock": clock, "telemetry": metrics}
    world = World(feeds.caches, clock=clock)
    feeds.policies.subscribe(lambda *_: feeds.policy_changed(world.policy_spec))
    diagnoses = Diagnoses(world=world, **shared)
    health = Health(
        caches=feeds.caches, feeds=feeds.states, election=doors.election, skew_s=clock.skew_s, clock=clock
    )
    observer = Observer(world=world, diagnoses=diagnoses, reader=reader, clock=clock)
    observer.repairs_before = partial(repairs_before, world)
    events = Events(records=records, **shared)
    reporter = Reporter(events=events, **shared)
    scout = Scout(world=world, diagnoses=diagnoses, observer=observer, clock=clock)
    witnesses = Witnesses(reader=reader, clock=clock)
    scout.witnesses = witnesses.said
    run_pass = RunPass(
        world=world, observer=observer, writer=doors.writer, records=records, reporter=reporter, **shared
    )
    fleet = FleetLoop(
        world=world,
        diagnoses=diagnoses,
        scout=scout,
        witnesses=witnesses,
        records=records,
        reader=reader,
        reporter=reporter,
        **shared,
    )
    joins = build_joins(doors, world, diagnoses, events)
    source = ExporterSource(
        pages=outside.pages,
        clock=clock,
        rng=doors.rng,
        on_reading=diagnoses.page_read,
        on_failure=diagnoses.page_failed,
    )
    return Parts(
        world=world,
        diagnoses=diagnoses,
        scout=scout,
        fleet=fleet,
        run_pass=run_pass,
        workers=Workers(world=world, run_pass=run_pass, **shared),
        ledgers=Ledgers(world=world, diagnoses=diagnoses, records=records, **shared),
        joins=joins,
        sweep=Sweep(world=world, writer=doors.writer, reader=reader, events=events, **shared),
        takeover=Takeover(world=world, writer=doors.writer, clock=clock),
        statuses=Statuses(
            world=world, scout=scout, diagnoses=diagnoses, pages=source, records=records, clock=clock
        ),
        gauges=Gauges(world=world, diagnoses=diagnoses, fleet=fleet, health=health, joins=joins, **shared),
        housekeeping=Housekeeping(world=world, records=records, clock=clock, ticks=outside.ticks),
        events=events,
        health=health,
        logbook=Logbook(world=world, diagnoses=diagnoses, health=health, clock=clock),
        pages=source,
    )


def build_joins(doors: Doors, world: World, diagnoses: Diagnoses, events: Events) -> Joins:
    """The join gate, and what it knows of the nodes that wait."""
    newcomers = Newcomers(world=world, diagnoses=diagnoses, reader=doors.reader, clock=doors.clock)
    newcomers.brake = doors.brake.share
    return Joins(
        world=world,
        newcomers=newcomers,
        writer=doors.writer,
        proofs=doors.writer,
        events=events,
        clock=doors.clock,
        telemetry=doors.metrics,
    )


def _end_on_bug(job: str, error: BaseException) -> None:
    """A job that broke one of our own rules ends the process; any other error is only told."""
    if isinstance(error, ContractError):
        _log.critical("our own rule is broken", job=job, error=str(error))
        signal.raise_signal(signal.SIGTERM)
    else:
        _log.error("job failed", job=job, error=str(error))


def open_reader(transport: Transport, clock: Clock, policy: PolicySpec | None = None) -> KubeReader:
    """Reads on demand; what is kept of a pod follows the policy."""
    spec = policy if policy is not None else PolicySpec()
    return KubeReader(transport, clock=clock, gpu_resource=spec.gpu_resource, pod_annotations=POD_ANNOTATIONS)


def open_pages() -> HttpPages:
    """The client for exporter pages; one idle connection a node is kept."""
    return HttpPages(connections_max=2_048, keepalive_s=60.0, user_agent=f"remediator/{__version__}")


async def _serve(settings: Settings, controller: Controller, doors: Doors) -> int:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, controller.stop)
    tls, reviews = settings.tls_dir, settings.review_tokens
    server = HealthServer(
        settings.host,
        settings.port,
        metrics=doors.metrics,
        ready=controller.not_ready,
        alive=controller.not_alive,
        status=controller.status,
        measure=controller.measure,
        certificate=ServingCertificate(tls, clock=doors.clock) if tls is not None else None,
        guard=TokenReviewer(doors.transport, clock=doors.clock) if reviews else None,
    )
    async with server:
        _log.info("serving health and metrics", port=server.port, tls=tls is not None, tokens=reviews)
        clean = await controller.run()
    return 0 if clean else LOST_LEADERSHIP
