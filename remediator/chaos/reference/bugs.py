"""The bugs that can be planted, one at a time. Each is one that a controller somewhere has had."""

from __future__ import annotations

import enum


class Bug(enum.Enum):
    """What is wrong, and by which rules the harness may tell."""

    def __init__(self, text: str, *rules: str) -> None:
        self.text = text
        self.rules = rules

    @property
    def slug(self) -> str:
        """Its name on the command line."""
        return self.name.lower().replace("_", "-")

    EVICTS_BY_NAME = "an eviction says no uid", "S4"
    NAME_AS_KEY = "work goes on with a new Node of the same name", "S4b", "S3"
    MOVES_BY_NAME = "the end of the work moves whatever bears the name", "S4b"
    PATCHES_BLINDLY = "a Node's taints are written without the version that was read", "S5"
    REBOOTS_FIRST = "the reboot is asked for before the fence stands", "S6"
    EVICTS_FIRST = "pods are evicted before the fence stands", "S7"
    STATUS_FIRST = "the record says fenced before the Node is", "S7", "S6", "S10", "S32"
    DELETES_PODS = "pods are deleted, past every budget", "S8"
    EVICTS_DAEMONS = "pods of DaemonSets are evicted", "S9"
    IGNORES_OPT_OUT = "nodes that people have opted out are fenced", "S10"
    OVERRULES_PEOPLE = "a fence that somebody took away is put back at once", "S11"
    LIFTS_FOREIGN_CORDON = "the end of the work lifts whatever cordon there is", "S12"
    DROPS_FOREIGN_TAINTS = "the list of taints is written as if it were all ours", "S12"
    UNFENCED_LEADER = "the record of promises takes writes of an old leader", "S13"
    CLAIMS_IN_MEMORY = "which spare is promised is remembered in memory only", "S14"
    COUNTS_IN_MEMORY = "the budget counts what this process has fenced", "S1"
    COUNTS_THE_CACHE = "the budget is counted in a cache that may be old", "S1"
    COUNTS_A_RATE = "the budget limits how many in five minutes, not how many at once", "S1"
    COUNTS_MEMBERS = "the fence takes the node out of its pool, and the budget counts members", "S2"
    TAKES_THE_LAST = "the last spare is given away", "S15"
    LEAVES_FIRST = "the node leaves its pool before its spare has come", "S16"
    ANY_SPARE = "a spare of another kind is taken", "S17"
    STRIPS_FINALIZERS = "a pod that will not go loses its finalizers", "S26"
    ACTS_ON_UNKNOWN = "a condition that is Unknown counts as a fault", "S3"
    TRUSTS_THE_CACHE = "what the cache showed is not looked at again before the fence", "S3", "S10", "S32"
    WRITES_NOTHING = "each look writes the Node, changed or not", "S22"
    NO_PAUSE = "what is refused is tried again at once", "S23"
    NAMES_NO_WORK = "requests do not say for which work they are", "S24"
    REBOOTS_TWICE = "a reboot whose reply is lost is asked for again under a new name", "S25"
    BREAKER_IN_MEMORY = "the storm guard forgets with the process", "S30"
    IGNORES_PEERS = "nodes that an autoscaler is deleting are fenced", "S32"
    NO_DEADLINE = "a pod that never ends is waited for for ever", "L1"
    LATE_DEADLINE = "no step is given up before half an hour", "L6"
    EDGE_TRIGGERED = "what the first list showed, or broke while nobody watched, is not looked at", "L2"
    DEAF_AFTER_410 = "a watch whose history is gone is opened again at the same place, for ever", "L2"
    FORGETS_THE_FENCE = "the work is closed before the fence is taken away", "L4"
    WALL_CLOCK_ELECTION = "the Lease is judged by the wall clock", "L7"
