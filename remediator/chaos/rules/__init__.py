"""The rules, one class each: one kind of harm, found in audit records alone."""

from __future__ import annotations

from typing import Final

from remediator.chaos.rules.endings import NoOrphans, RunsEnd
from remediator.chaos.rules.evictions import BoundByUid, EvictionApiOnly, FenceFirst, RightPod
from remediator.chaos.rules.nodes import OwnFieldsOnly, PeersRespected, VersionBound
from remediator.chaos.rules.plans import Explained, LevelBudget, OneSpareOnePlan
from remediator.chaos.rules.rule import Rule
from remediator.chaos.rules.stream import LeastPrivilege, NoEmptyWrite, NoHotLoop, TermNeverFalls

RULES: Final[tuple[type[Rule], ...]] = (
    LevelBudget,
    BoundByUid,
    VersionBound,
    FenceFirst,
    EvictionApiOnly,
    RightPod,
    OwnFieldsOnly,
    TermNeverFalls,
    OneSpareOnePlan,
    NoEmptyWrite,
    NoHotLoop,
    Explained,
    LeastPrivilege,
    PeersRespected,
)

# Judged at the end of a log that ends in calm.
ENDINGS: Final[tuple[type[Rule], ...]] = (RunsEnd, NoOrphans)
