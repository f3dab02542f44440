"""The loop of the reference controller: who leads notes faults, grants work within limits, advances it."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any, Final

from remediator.chaos.reference.api import (
    BOOK,
    FAULT,
    NODES,
    REPAIRS,
    TOUCHED,
    Api,
    Json,
    condition,
    fence_of,
    has_taint,
    instant,
    pool_of,
    product_of,
    taints,
)
from remediator.chaos.reference.bugs import Bug
from remediator.chaos.reference.election import Election
from remediator.chaos.reference.repair import OPEN, OUT, Repairs, state_of
from remediator.chaos.reference.sight import Sight
from remediator.errors import TransientError
from remediator.ports import Clock, Transport

TICK_S: Final = 3.0
AT_ONCE_S: Final = 0.05
MOST: Final = 3  # nodes fenced at once
FLOOR: Final = 1  # spares that stay
STORM_MOST: Final = 4  # nodes newly fenced within STORM
STORM: Final = timedelta(minutes=6)  # a minute more than is promised: so long a grant may wait
HOLD: Final = timedelta(hours=1)  # after a person's no
UNREACHABLE: Final = "node.kubernetes.io/unreachable"


class Controller:
    """One process of it.

    Args:
        transport: to the API server.
        clock: of its machine.
        name: of this process, which no other one has.
        bugs: that are switched on.
        most: so many nodes may be fenced at once.
    """

    def __init__(
        self, transport: Transport, clock: Clock, *, name: str, bugs: frozenset[Bug], most: int = MOST
    ) -> None:
        self._clock = clock
        self._most = most
        self._bugs = bugs
        self._election = Election(clock, name, bugs)
        self._api = Api(transport, lambda: self._election.term, named=Bug.NAMES_NO_WORK not in bugs)
        self._sight = Sight(transport, self._api, clock, bugs)
        self._repairs = Repairs(self._api, bugs)
        self._ready_term = 0  # the book and the nodes of open work say that this term has begun
        self._granted: dict[str, Any] = {}  # by this process: for the bugs that remember nothing else
        self._stopping = False

    @property
    def leading(self) -> bool:
        return self._election.leading

    def stop(self) -> None:
        """End after the look at hand, and give the Lease back."""
        self._stopping = True

    async def run(self) -> bool:
        """Until it is told to stop; True then."""
        follow = asyncio.get_running_loop().create_task(self._sight.follow())
        try:
            while not self._stopping:
                before = self._repairs.refused
                await self._once()
                again = self._repairs.refused > before and Bug.NO_PAUSE in self._bugs
                await self._clock.sleep(AT_ONCE_S if again else TICK_S)
            await self._quietly_resign()
        finally:
            follow.cancel()
            await asyncio.gather(follow, return_exceptions=True)
        return True

    async def _quietly_resign(self) -> None:
        try:
            await self._election.resign(self._api)
        except TransientError:
            return  # the next leader waits for the Lease to run out

    async def _once(self) -> None:
        try:
            await self._election.hold(self._api)
            if self._election.leading:
                await self._lead()
        except TransientError:
            return  # the next look finds out what came of it

    async def _lead(self) -> None:
        repairs = await self._list(REPAIRS)
        book = await self._open_book(repairs) if repairs is not None else None
        if repairs is None or book is None:
            return
        await self._note_faults(repairs)
        spares = {claim["work"]: claim["spare"] for claim in _claims(book)}
        for repair in repairs:
            if state_of(repair) in OPEN and self._election.leading:
                await self._repairs.advance(repair, spares.get(repair["metadata"]["name"], ""))
        await self._tidy(book, repairs)
        await self._grant(book, repairs)

    async def _list(self, path: str) -> list[Json] | None:
        found = await self._api.get(path)
        return list(found.body["items"]) if found.ok else None

    # -- the book

    async def _open_book(self, repairs: list[Json]) -> Json | None:
        """The record of promises, once it knows our term; None where that can't be had now."""
        found = await self._api.get(BOOK)
        if found.code == 404:
            collection, _, name = BOOK.rpartition("/")
            await self._api.send("POST", collection, {"metadata": {"name": name}})
            return None
        if not found.ok:
            return None
        book, ours = found.body, self._election.term
        theirs = int((book.get("status") or {}).get("term", 0))
        if theirs > ours and Bug.UNFENCED_LEADER not in self._bugs:
            return None  # somebody leads after us
        if self._ready_term != ours:
            if theirs != ours and not await self._write_book(book, term=ours):
                return None
            if not await self._touch(repairs):
                return None
            self._ready_term = ours
        return book

    async def _write_book(self, book: Json, **change: Any) -> bool:
        """Change its status, on the version that was read; the book is as it was left then."""
        status = {**(book.get("status") or {}), **change}
        if Bug.UNFENCED_LEADER in self._bugs:
            sent = await self._api.send("PATCH", f"{BOOK}/status", {"status": status})
        else:
            sent = await self._api.send("PUT", f"{BOOK}/status", {**book, "status": status})
        if sent.ok:
            book.clear()
            book.update(sent.body)
        return sent.ok

    async def _touch(self, repairs: list[Json]) -> bool:
        """Write each node of open work once: what an old leader may still send was decided before that."""
        return all([await self._touched(each) for each in repairs if state_of(each) in OPEN])

    async def _touched(self, repair: Json) -> bool:
        name, spec, term = repair["metadata"]["name"], repair["spec"], str(self._election.term)
        found = await self._api.get(f"{NODES}/{spec['node']}")
        if not found.ok:
            return found.code == 404
        meta = found.body["metadata"]
        if meta["uid"] != spec["uid"] or (meta.get("annotations") or {}).get(TOUCHED) == term:
            return True
        change = {"metadata": {"annotations": {TOUCHED: term}, "resourceVersion": found.version}}
        return (await self._api.send("PATCH", f"{NODES}/{spec['node']}", change, work=name)).ok

    # -- faults and grants

    async def _note_faults(self, repairs: list[Json]) -> None:
        """A record for every fault that has none, granted or not: what waits is told, too."""
        for name, node in sorted(self._sight.nodes.items()):
            if not self._repairs.is_faulty(node) or not self._repairs.may_touch(node):
                continue
            if Bug.EDGE_TRIGGERED in self._bugs:
                if name not in self._sight.stirred:
                    continue
                self._sight.stirred.discard(name)
            uid = node["metadata"]["uid"]
            known = [repair for repair in repairs if repair["spec"]["uid"] == uid]
            if any(self._answers(repair) for repair in known):
                continue
            why = {"from": "condition", "type": FAULT, "said": f"{FAULT}={condition(node)}"}
            spec = {"node": name, "uid": uid, "why": [why]}
            record = {"metadata": {"name": f"{uid}-{len(known)}"}, "spec": spec}
            made = await self._api.send("POST", REPAIRS, record)
            if made.ok:
                repairs.append(made.body)

    def _answers(self, repair: Json) -> bool:
        """Does this record say what becomes of the fault?"""
        state = state_of(repair)
        if state == "Cancelled" and Bug.OVERRULES_PEOPLE not in self._bugs:
            return self._api.now - instant(repair["status"]["since"]) < HOLD
        return state in OPEN or state in ("Waiting", "HandedOff")

    async def _tidy(self, book: Json, repairs: list[Json]) -> None:
        """Take back what was promised to work that is over."""
        over = {each["metadata"]["name"] for each in repairs if state_of(each) not in (*OPEN, "Waiting")}
        left = [claim for claim in _claims(book) if claim["work"] not in over]
        for work in over:
            self._granted.pop(work, None)
        if len(left) != len(_claims(book)):
            await self._write_book(book, claims=left)

    async def _grant(self, book: Json, repairs: list[Json]) -> None:
        """Let one more piece of work begin, if the limits allow it."""
        waiting = [repair for repair in repairs if state_of(repair) == "Waiting"]
        nodes = await self._list(NODES) if waiting else None
        live = {node["metadata"]["name"]: node for node in nodes or ()}
        for repair in waiting if nodes is not None else ():
            if await self._consider(book, repair, live):
                return

    async def _consider(self, book: Json, repair: Json, live: dict[str, Json]) -> bool:
        """True where something was written: the next look goes on from there."""
        if not repair.get("status"):
            await self._repairs.say(repair, "Waiting")
        work, node = repair["metadata"]["name"], live.get(repair["spec"]["node"])
        if any(claim["work"] == work for claim in _claims(book)):
            await self._repairs.say(repair, "Granted")
            return True
        if node is None or node["metadata"]["uid"] != repair["spec"]["uid"]:
            await self._repairs.say(repair, "Gone")
            return True
        trusted = Bug.TRUSTS_THE_CACHE in self._bugs
        if not trusted and not self._repairs.is_faulty(node):
            await self._repairs.say(repair, "Done")
            return True
        if not (trusted or self._repairs.may_touch(node)) or not self._room(book, live):
            return False
        claim = {"work": work, "node": repair["spec"]["node"], "spare": self._spare(book, node, live)}
        fences = [*self._recent(book), self._api.now.isoformat()]
        self._granted[work] = claim | {"at": self._api.now}
        if await self._write_book(book, claims=[*_claims(book), claim], fences=fences):
            await self._repairs.say(repair, "Granted")
        return True

    def _room(self, book: Json, live: dict[str, Json]) -> bool:
        recent = self._recent(book)
        if Bug.BREAKER_IN_MEMORY in self._bugs:
            recent = [each for each in self._granted.values() if self._api.now - each["at"] < STORM]
        return self._out(book, live) < self._most and len(recent) < STORM_MOST

    def _out(self, book: Json, live: dict[str, Json]) -> int:
        """How many nodes are fenced, or are about to be."""
        if Bug.COUNTS_A_RATE in self._bugs:
            return len(self._recent(book)) - 1
        if Bug.COUNTS_IN_MEMORY in self._bugs:
            return len(self._granted)
        if Bug.COUNTS_THE_CACHE in self._bugs:
            return sum(bool(fence_of(node)) for node in self._sight.nodes.values())
        if Bug.COUNTS_MEMBERS in self._bugs:
            return sum(bool(fence_of(node)) and pool_of(node) != OUT for node in live.values())
        fenced = {name for name, node in live.items() if fence_of(node)}
        return len(fenced | {claim["node"] for claim in _claims(book)})

    def _recent(self, book: Json) -> list[str]:
        """When nodes were fenced within the time of the storm guard."""
        times = (book.get("status") or {}).get("fences") or ()
        return [each for each in times if self._api.now - instant(each) < STORM]

    def _spare(self, book: Json, leaver: Json, live: dict[str, Json]) -> str:
        """A node of the buffer, like the leaver, well and promised to nobody; empty where there is none."""
        if pool_of(leaver) == "buffer":
            return ""
        claims = self._granted.values() if Bug.CLAIMS_IN_MEMORY in self._bugs else _claims(book)
        taken = {claim["spare"] for claim in claims}
        idle = {name: node for name, node in live.items() if name not in taken and _waits(node)}
        if len(idle) <= FLOOR and Bug.TAKES_THE_LAST not in self._bugs:
            return ""
        fit = (name for name, node in idle.items() if self._fits(node) and self._is_like(node, leaver))
        return min(fit, default="")

    def _is_like(self, node: Json, leaver: Json) -> bool:
        return product_of(node) == product_of(leaver) or Bug.ANY_SPARE in self._bugs

    def _fits(self, node: Json) -> bool:
        well = condition(node, "Ready") == "True" and not self._repairs.is_faulty(node)
        free = not node["spec"].get("unschedulable") and not has_taint(node, UNREACHABLE)
        return well and free and len(taints(node)) == 1


def _waits(node: Json) -> bool:
    """Is it a spare that nothing is done to?"""
    return pool_of(node) == "buffer" and not fence_of(node)


def _claims(book: Json) -> list[Json]:
    return list((book.get("status") or {}).get("claims") or ())
