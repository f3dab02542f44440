"""Why a published figure misses its target, as far as the figure itself shows it.

Each reason cites numbers of the published result; whoever publishes a new one reads it again. A test
demands a reason for each missed target, and none for a target that is met.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

#: Figure and name of its check to the reason.
SHORTFALLS: Final[Mapping[tuple[str, str], str]] = {
    ("burst", "P50 of the last taint to bare"): (
        "The faults are all known within 1.2 s and the first taint lands after half a second; what takes "
        "time is the books of 200 runs: a Remediation, a grant, a taint, a state and a ledger each, where"
        " bare writes two objects for each node. They are written by one process that shares two cores "
        "with its server, and a turn of its loop was late by more than 10 ms 216 times in ten bursts."
    ),
    ("condition_to_taint", "P50 to bare P50"): (
        "Of the 16 ms more, 8.5 are spent on recording the intent: an object with a schema and a grant in"
        " the policy's status, sent together, where bare posts one small object. 3.6 go to noticing (the "
        "event is decoded into types and diagnosed against all playbooks), 2.8 to the fleet pass with all"
        " its gates, 1.6 to a patch that two admission policies look at."
    ),
    ("condition_to_taint_1000", "P50 to bare P50"): (
        "The same stages as at 100 nodes: of 21 ms more, 8 for the intent, 7 for noticing, 3 for the "
        "fleet pass and 3 for the patch. The nodes are five times as large, so both sides wait longer for"
        " the server."
    ),
    ("hard_fault", "evictions per second, P50 to bare"): (
        "Ours go band by band by priority, and each band ends with its slowest answer. They also pass the"
        " server's priority and fairness with the dozen seats that two cores give our FlowSchema, like in"
        " production."
    ),
    ("hard_fault_1000", "evictions per second, P50 to bare"): (
        "As at 100 nodes; and a thousand exporter pages in five seconds are read by the same process, on "
        "the same two cores as the server."
    ),
    ("memory", "MB per 1,000 nodes"): (
        "A node is kept as typed views of its labels, annotations, taints and conditions, with what was "
        "diagnosed from them: 8 KB for an object of 25 KB. The sum stays below the budget for each size, "
        "since the process without nodes takes less than was allowed for it."
    ),
    ("writes_per_run", "writes per remediated node, evictions included"): (
        "Ten of the 28.8 are states of the run: intent before each effect, and its outcome after it, are "
        "what a restart goes on from. The fleet's grant and its release take four, the pool's figures "
        "three, the machine's ledger four."
    ),
    ("writes_per_run_1000", "writes per remediated node, evictions included"): (
        "The same ten states of a run as at 100 nodes. The pools' figures take 4.9 writes instead of 2.8, "
        "the grants 3.4 instead of 4.1."
    ),
}
