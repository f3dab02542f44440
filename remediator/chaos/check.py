"""Carries every rule through a log, once, and says of each what came of it."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Final, Literal

from msgspec import Struct

from remediator.adapters.audit import Numbered
from remediator.chaos.ordering import in_version_order
from remediator.chaos.profile import Profile
from remediator.chaos.rules import ENDINGS, RULES
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

    def end(self, last: Numbered | None) -> None:
        text = self.rule.end()
        if text is not None and last is not None:
            self.broken += 1
            record = last.record
            self.kept.append(
                Finding(last.line, record.audit_id, record.staged_at, "the end of the log", text)
            )

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


class Judge:
    """Judges one controller while its log is written, record by record; bounded in memory.

    Args:
        profile: of that controller.
        calm: at the end of the log nothing has gone wrong for a while, so that endings can be judged.
    """

    def __init__(self, profile: Profile, *, calm: bool = False) -> None:
        self._profile = profile
        self._world = World()
        rules = (*RULES, *ENDINGS) if calm else RULES
        self._books = [_Book(rule(profile, self._world)) for rule in rules]
        self._lacking = {each.rule.id: _lacking(each.rule, profile) for each in self._books}
        self._listeners = [each.rule for each in self._books if type(each.rule).overhear is not Rule.overhear]
        self._seen = self._own = 0
        self._others: set[str] = set()
        self._last: Numbered | None = None

    def see(self, numbered: Numbered) -> None:
        """Take the next record in."""
        record = numbered.record
        self._seen += 1
        self._last = numbered
        if record.stage != "ResponseComplete":
            return
        if record.username == self._profile.user:
            self._own += 1
            if not is_dry_run(record):
                for book in self._books:
                    if not self._lacking[book.rule.id]:
                        book.see(numbered)
        else:
            for rule in self._listeners:
                rule.overhear(record)
            if not self._own and len(self._others) < KEPT_MAX:
                self._others.add(record.username)
        self._world.take(record)

    def under_way(self) -> bool:
        """Would an ending be missed if the log ended now?"""
        return any(book.rule.end() is not None for book in self._books)

    def report(self) -> Report:
        """What the log says, once it has ended."""
        for book in self._books:
            if not self._lacking[book.rule.id]:
                book.end(self._last)
        return Report(
            profile=self._profile.name,
            user=self._profile.user,
            records=self._seen,
            own=self._own,
            verdicts=tuple(each.verdict(self._lacking[each.rule.id]) for each in self._books),
            users=() if self._own else tuple(sorted(self._others)),
        )


def check(records: Iterable[Numbered], profile: Profile) -> Report:
    """Judge one controller by one log, read once."""
    judge = Judge(profile)
    for numbered in in_version_order(records):
        judge.see(numbered)
    return judge.report()


def _lacking(rule: Rule, profile: Profile) -> tuple[str, ...]:
    return tuple(need for need in rule.needs if not getattr(profile, need))
