"""The world as the commands see it: read once, consistently, by the controller's own code.

Nothing here can write: the doors that ``plan`` and ``why`` get refuse every write.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar

from msgspec import UNSET

from remediator.adapters.clock import SystemClock
from remediator.adapters.exporters.fetch import HttpPages
from remediator.adapters.exporters.scan import Scanner
from remediator.adapters.exporters.targets import targets
from remediator.adapters.kube.listing import consistent_list
from remediator.adapters.kube.reader import KubeReader, kind_decoder, policy_decoder
from remediator.adapters.kube.records import LEDGERS, PLAYBOOKS, POLICIES, POOLS, RUNS
from remediator.adapters.kube.server_clock import ServerClock
from remediator.adapters.kube.store import Store
from remediator.adapters.kube.transport import KubeTransport
from remediator.adapters.kube.wire import ObjectDecoder
from remediator.adapters.telemetry.metrics import Metrics
from remediator.app.connection import open_connection
from remediator.app.controller import open_pages, open_reader, require_installed
from remediator.app.feeds import NODES, decoder_for
from remediator.app.settings import Settings
from remediator.core.steps.drain import POD_ANNOTATIONS
from remediator.errors import PageError
from remediator.model.duration import seconds
from remediator.model.ledger import ManagedNode
from remediator.model.playbook import Playbook
from remediator.model.policy import PolicySpec
from remediator.model.pool import ResourcePool
from remediator.model.remediation import Remediation
from remediator.model.signal import PageTrouble
from remediator.runtime.diagnosis import Diagnoses
from remediator.runtime.observer import Observer
from remediator.runtime.scout import Scout
from remediator.runtime.witness import Witnesses
from remediator.runtime.world import Caches, World

PAGE_BYTES_MAX = 4 * 1024 * 1024
PAGES_AT_ONCE = 64
PAGE_TIMEOUT_S = 5.0  # a person waits; where the exporters are out of reach, all of them are

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """One consistent reading of everything that decisions look at."""

    clock: ServerClock
    transport: KubeTransport
    reader: KubeReader
    world: World
    diagnoses: Diagnoses
    observer: Observer
    scout: Scout
    witnesses: Witnesses

    async def read_pages(self, nodes: tuple[str, ...]) -> tuple[str, ...]:
        """Fetch these nodes' exporter pages and diagnose them anew.

        Returns what could not be read, one line each: from outside of the cluster the exporters
        are often out of reach, and then the ledger's latches are all that is known.
        """
        spec = self.world.policy_spec.exporter
        if spec is UNSET:
            return ()
        addresses = {}
        if not spec.address and spec.pod_selector is not UNSET:
            addresses = dict(await self.reader.pod_addresses(spec.namespace, spec.pod_selector))
        wanted = [node for name in nodes if (node := self.world.node(name)) is not None]
        found = targets(spec, wanted, addresses)
        scanner = Scanner(self.diagnoses.fields)
        problems = list(found.problems)
        turns = asyncio.Semaphore(PAGES_AT_ONCE)

        async def read(pages: HttpPages, name: str, url: str) -> None:
            try:
                async with turns:
                    body = await pages.fetch(
                        url, timeout_s=min(PAGE_TIMEOUT_S, seconds(spec.timeout)), bytes_max=PAGE_BYTES_MAX
                    )
                reading = scanner.scan(
                    body, node=name, at=self.clock.now(), at_monotonic=self.clock.monotonic()
                )
            except PageError as error:
                problems.append(f"{name}: {error}")
                self.diagnoses.page_failed(name, PageTrouble(error.kind, str(error)))
            else:
                self.diagnoses.page_read(reading)
            self.diagnoses.look(name)

        async with open_pages() as pages:
            await asyncio.gather(*(read(pages, name, url) for name, url in found.urls.items()))
        return tuple(sorted(problems))


@asynccontextmanager
async def open_snapshot(settings: Settings) -> AsyncIterator[Snapshot]:
    """Connect, and read everything once.

    Raises:
        InputError, PermanentError, TransientError: it can't be read; the message names the fix.
    """
    clock = ServerClock(SystemClock())
    async with open_connection(settings, clock) as transport:
        await require_installed(transport)
        yield await take_snapshot(transport, clock)


async def take_snapshot(transport: KubeTransport, clock: ServerClock) -> Snapshot:
    """Read everything once, from a server that serves our kinds.

    Raises:
        PermanentError, TransientError: it can't be read; the message names the fix.
    """
    reader = open_reader(transport, clock)
    seen = await reader.policy()
    spec = seen.policy.spec if seen is not None else PolicySpec()
    reader.keep(gpu_resource=spec.gpu_resource, pod_annotations=POD_ANNOTATIONS)
    caches = Caches(
        nodes=Store(clock=clock),
        runs=Store(clock=clock),
        playbooks=Store(clock=clock),
        pools=Store(clock=clock),
        policies=Store(clock=clock),
        ledgers=Store(clock=clock),
    )
    world = World(caches, clock=clock)
    diagnoses = Diagnoses(world=world, clock=clock, telemetry=Metrics())
    observer = Observer(world=world, diagnoses=diagnoses, reader=reader, clock=clock)
    scout = Scout(world=world, diagnoses=diagnoses, observer=observer, clock=clock)
    witnesses = Witnesses(reader=reader, clock=clock)
    scout.witnesses = witnesses.said
    await _fill(transport, clock, caches, spec)
    scout.term = world.policy_status.term
    diagnoses.rules_changed()
    for name in world.nodes:
        diagnoses.look(name)
    return Snapshot(
        clock=clock,
        transport=transport,
        reader=reader,
        world=world,
        diagnoses=diagnoses,
        observer=observer,
        scout=scout,
        witnesses=witnesses,
    )


async def _fill(transport: KubeTransport, clock: ServerClock, caches: Caches, spec: PolicySpec) -> None:
    async def fill(store: object, decoder: ObjectDecoder[T], path: str) -> None:
        assert isinstance(store, Store)
        found = await consistent_list(transport, path, decoder, clock=clock)
        store.tell(store.replace(found.views, found.versions, found.undecodable, found.version))

    await asyncio.gather(
        fill(caches.policies, policy_decoder(), POLICIES),
        fill(caches.pools, kind_decoder(ResourcePool), POOLS),
        fill(caches.playbooks, kind_decoder(Playbook), PLAYBOOKS),
        fill(caches.runs, kind_decoder(Remediation), RUNS),
        fill(caches.ledgers, kind_decoder(ManagedNode), LEDGERS),
    )
    await fill(caches.nodes, decoder_for(spec), NODES)
