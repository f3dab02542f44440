"""The rules, one class each: one kind of harm, found in audit records alone."""

from __future__ import annotations

from typing import Final

from remediator.chaos.rules.endings import FaultsAnswered, NoOrphans, RunsEnd, SomebodyLeads, StepsEnd
from remediator.chaos.rules.evictions import BoundByUid, EvictionApiOnly, FenceFirst, RightPod
from remediator.chaos.rules.faults import EvidenceFirst, OwnBranch, PeopleWin, ReasonStands, StormGuard
from remediator.chaos.rules.joins import JoinLimit, NobodyBefore, NobodyForgotten, ProvedFirst
from remediator.chaos.rules.machines import RebootFenced, RebootOnce, SameMachine
from remediator.chaos.rules.nodes import OptedOut, OwnFieldsOnly, PeersRespected, VersionBound
from remediator.chaos.rules.plans import Explained, LevelBudget, OneSpareOnePlan
from remediator.chaos.rules.rule import Rule
from remediator.chaos.rules.stream import (
    LeastPrivilege,
    NoEmptyWrite,
    NoHotLoop,
    OnlyLooks,
    OwnFinalizers,
    TermNeverFalls,
)
from remediator.chaos.rules.swaps import CountedUntilReplaced, LeavesLast, LikeForLike, Reserve

RULES: Final[tuple[type[Rule], ...]] = (
    LevelBudget,
    CountedUntilReplaced,
    EvidenceFirst,
    ReasonStands,
    BoundByUid,
    SameMachine,
    VersionBound,
    RebootFenced,
    FenceFirst,
    EvictionApiOnly,
    RightPod,
    OptedOut,
    PeopleWin,
    OwnFieldsOnly,
    TermNeverFalls,
    OneSpareOnePlan,
    Reserve,
    LeavesLast,
    LikeForLike,
    JoinLimit,
    NobodyBefore,
    ProvedFirst,
    OnlyLooks,
    NoEmptyWrite,
    NoHotLoop,
    Explained,
    RebootOnce,
    OwnFinalizers,
    LeastPrivilege,
    StormGuard,
    OwnBranch,
    PeersRespected,
)

# Judged at the end of a log that ends in calm.
ENDINGS: Final[tuple[type[Rule], ...]] = (
    RunsEnd,
    FaultsAnswered,
    NoOrphans,
    StepsEnd,
    SomebodyLeads,
    NobodyForgotten,
)
