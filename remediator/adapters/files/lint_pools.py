"""Lint of pools and of the policy."""

from __future__ import annotations

from collections.abc import Iterator

from remediator.adapters.files.lint_rules import Context, Finding, finding
from remediator.adapters.files.loader import LoadedObject
from remediator.adapters.files.walker import near_miss
from remediator.model.keys import POLICY_NAME
from remediator.model.policy import RemediationPolicy


def check_policy(loaded: LoadedObject, _context: Context) -> Iterator[Finding]:
    """The policy's one name."""
    if isinstance(loaded.value, RemediationPolicy) and loaded.name != POLICY_NAME:
        text = f"policy {loaded.name!r} would be refused"
        yield finding("policy-name", loaded, ("metadata", "name"), text, f"name it {POLICY_NAME}")


def check_pools(context: Context) -> Iterator[Finding]:
    """Pools that share their nodes, and buffers that are none."""
    owners: dict[tuple[str, str], str] = {}
    pools = {pool.metadata.name: pool for _, pool in context.pools()}
    for loaded, pool in context.pools():
        membership = (pool.spec.membership.key, pool.spec.membership.value)
        first = owners.setdefault(membership, loaded.name)
        if first != loaded.name:
            text = f"label {membership[0]}={membership[1]} makes a node a member of pool {first!r} too"
            yield finding("pool-twice", loaded, ("spec", "membership"), text, "give each pool its own value")
        for index, name in enumerate(pool.spec.buffers):
            at = ("spec", "buffers", index)
            if name not in pools:
                meant = near_miss(name, pools)
                fix = f"did you mean {meant}?" if meant else "add the pool to what is linted"
                yield finding("pool-unknown", loaded, at, f"there is no pool {name!r}", fix)
            elif pools[name].spec.role != "Buffer":
                text = f"pool {name!r} has the role {pools[name].spec.role}"
                yield finding("pool-role", loaded, at, text, "name a pool of role Buffer")
