"""The reflectors of the controller: one per kind, each feeding one cache."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from random import Random
from typing import Any, Final, TypeVar

from remediator.adapters.kube.projection import node_decoder
from remediator.adapters.kube.reader import kind_decoder, policy_decoder
from remediator.adapters.kube.records import LEDGERS, PLAYBOOKS, POLICIES, POOLS, RUNS
from remediator.adapters.kube.reflector import Reflector
from remediator.adapters.kube.rewriters import note_rewrite
from remediator.adapters.kube.store import Store, node_changed, object_changed
from remediator.adapters.kube.wire import ObjectDecoder
from remediator.core.owners import ANNOTATIONS
from remediator.model.ledger import ManagedNode
from remediator.model.playbook import Playbook
from remediator.model.policy import PolicySpec
from remediator.model.pool import ResourcePool
from remediator.model.remediation import Remediation
from remediator.model.views import NodeView
from remediator.ports import Clock, FeedState, PolicyObject, Transport
from remediator.runtime.world import Caches

T = TypeVar("T")

NODES: Final = "/api/v1/nodes"


class Feeds:
    """The caches and the jobs that keep them equal to the server."""

    def __init__(self, transport: Transport, *, clock: Clock, rng: Random, policy: PolicySpec) -> None:
        self._transport = transport
        self._clock = clock
        self._rng = rng
        self.nodes: Store[NodeView] = Store(clock=clock, changed=node_changed)
        self.runs: Store[Remediation] = Store(clock=clock, changed=object_changed)
        self.playbooks: Store[Playbook] = Store(clock=clock, changed=object_changed)
        self.pools: Store[ResourcePool] = Store(clock=clock, changed=object_changed)
        self.policies: Store[PolicyObject] = Store(clock=clock)
        self.ledgers: Store[ManagedNode] = Store(clock=clock, changed=object_changed)
        self._node_reflector = self._reflector(self.nodes, decoder_for(policy), NODES, refine=note_rewrite)
        self._others: dict[str, Reflector[Any]] = {
            "remediations": self._reflector(self.runs, kind_decoder(Remediation), RUNS),
            "playbooks": self._reflector(self.playbooks, kind_decoder(Playbook), PLAYBOOKS),
            "resourcepools": self._reflector(self.pools, kind_decoder(ResourcePool), POOLS),
            "remediationpolicies": self._reflector(self.policies, policy_decoder(), POLICIES),
            "managednodes": self._reflector(self.ledgers, kind_decoder(ManagedNode), LEDGERS),
        }
        self._read_by = node_rules(policy)
        self._reread = asyncio.Event()

    @property
    def caches(self) -> Caches:
        return Caches(
            nodes=self.nodes,
            runs=self.runs,
            playbooks=self.playbooks,
            pools=self.pools,
            policies=self.policies,
            ledgers=self.ledgers,
        )

    def jobs(self) -> list[Callable[[], Awaitable[None]]]:
        """Every reflector's endless job."""
        return [self._follow_nodes, *(reflector.run for reflector in self._others.values())]

    def states(self) -> Mapping[str, FeedState]:
        """By kind what its reflector says of itself."""
        everyone: dict[str, Reflector[Any]] = {"nodes": self._node_reflector, **self._others}
        return {kind: each.state() for kind, each in everyone.items()}

    def policy_changed(self, policy: PolicySpec) -> None:
        """Read all nodes again when the policy names other annotations or another GPU resource."""
        if node_rules(policy) != self._read_by:
            self._read_by = node_rules(policy)
            self._node_reflector.decoder = decoder_for(policy)
            self._reread.set()

    async def _follow_nodes(self) -> None:
        while True:
            self._reread.clear()
            reading = asyncio.ensure_future(self._node_reflector.run())
            changed = asyncio.ensure_future(self._reread.wait())
            try:
                done, _ = await asyncio.wait((reading, changed), return_when=asyncio.FIRST_COMPLETED)
                if reading in done:
                    reading.result()
            finally:
                changed.cancel()
                reading.cancel()
                await asyncio.gather(reading, changed, return_exceptions=True)

    def _reflector(
        self,
        store: Store[T],
        decoder: ObjectDecoder[T],
        path: str,
        refine: Callable[[T, T, bytes], T] | None = None,
    ) -> Reflector[T]:
        return Reflector(
            self._transport, store, decoder, path, clock=self._clock, rng=self._rng, refine=refine
        )


def node_rules(policy: PolicySpec) -> tuple[str, frozenset[str]]:
    """What of the policy decides what is kept of a Node."""
    return policy.gpu_resource, frozenset((*ANNOTATIONS, *policy.identity.annotations))


def decoder_for(policy: PolicySpec) -> ObjectDecoder[NodeView]:
    resource, annotations = node_rules(policy)
    return node_decoder(gpu_resource=resource, annotations=annotations)
