"""Carries every rule through a log, once, and says of each what came of it."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Final, Literal

from msgspec import Struct

from remediator.adapters.audit import Numbered
from remediator.chaos.profile import Profile
from remediator.chaos.rules import RULES
from remediator.chaos.rules.rule import Rule
from remediator.chaos.world import World, is_dry_run

KEPT_MAX: Final = 20  # findings of one rule that are kept whole; the others are counted

Answer = Literal["held", "broken", "unknown", "no case"]


class Finding(Struct, frozen=True):
    """One request that broke a rule, with where its record stands in the log."""

    line: int
    audit_id: str
    at: datetime
    request: str
    text: str


class Verdict(Struct, frozen=True, kw_only=True):
    """What a log says of one rule. ``why`` is set where the answer is unknown."""

    rule: str
    sentence: str
    answer: Answer
    judged: int
    unjudged: int
    broken: int = 0
    why: str = ""
    findings: tuple[Finding, ...] = ()


class Report(Struct, frozen=True, kw_only=True):
    """``own`` of the ``records`` were the controller's; where none was, ``users`` says whose they were."""

    profile: str
    user: str
    records: int
    own: int
    verdicts: tuple[Verdict, ...]
    users: tuple[str, ...] = ()

    @property
    def broken(self) -> bool:
        return any(each.answer == "broken" for each in self.verdicts)


class _Book:
    """One rule's findings."""

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self.broken = 0
        self.kept: list[Finding] = []

    def see(self, numbered: Numbered) -> None:
        record = numbered.record
        text = self.rule.see(record)
        if text is None:
            return
        self.broken += 1
        if len(self.kept) < KEPT_MAX:
            request = f"{record.verb} {record.request_uri}"
            self.kept.append(Finding(numbered.line, record.audit_id, record.received_at, request, text))

    def verdict(self, lacking: tuple[str, ...]) -> Verdict:
        rule = self.rule
        answer, why = self._answer(lacking)
        return Verdict(
            rule=rule.id,
            sentence=rule.sentence,
            answer=answer,
            judged=rule.judged,
            unjudged=rule.unjudged,
            broken=self.broken,
            why=why,
            findings=tuple(self.kept),
        )

    def _answer(self, lacking: tuple[str, ...]) -> tuple[Answer, str]:
        rule = self.rule
        if lacking:
            return "unknown", f"the profile lacks {', '.join(lacking)}"
        if self.broken:
            return "broken", ""
        if rule.unjudged:
            seen = f"{rule.unjudged} of {rule.unjudged + rule.judged} requests can't be judged"
            return "unknown", f"{seen}: the log has no body of them, or began too late"
        return ("held", "") if rule.judged else ("no case", "")


def check(records: Iterable[Numbered], profile: Profile) -> Report:
    """Judge one controller by one log, read once."""
    world = World()
    books = [_Book(rule(profile, world)) for rule in RULES]
    lacking = {each.rule.id: _lacking(each.rule, profile) for each in books}
    seen = own = 0
    others: set[str] = set()
    for numbered in records:
        record = numbered.record
        seen += 1
        if record.stage != "ResponseComplete":
            continue
        if record.username == profile.user:
            own += 1
            if not is_dry_run(record):
                for book in books:
                    if not lacking[book.rule.id]:
                        book.see(numbered)
        elif not own and len(others) < KEPT_MAX:
            others.add(record.username)
        world.take(record)
    return Report(
        profile=profile.name,
        user=profile.user,
        records=seen,
        own=own,
        verdicts=tuple(each.verdict(lacking[each.rule.id]) for each in books),
        users=() if own else tuple(sorted(others)),
    )


def _lacking(rule: Rule, profile: Profile) -> tuple[str, ...]:
    return tuple(need for need in rule.needs if not getattr(profile, need))
