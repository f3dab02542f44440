"""Lays a plan out, as text and as JSON. Pure."""

from __future__ import annotations

from typing import Final

from remediator.app.explain import Answer, Judged
from remediator.cli.columns import LABEL_WIDTH, WIDTH, clip, labelled, table
from remediator.cli.plan_facts import Leaving, Spares
from remediator.cli.why_screen import fault_lines, gate_rows, headline
from remediator.model.signal import Fault
from remediator.model.words import how_many, shortened

FORMAT_VERSION: Final = "1.0"
PODS_SHOWN: Final = 1
REFUSED_SHOWN: Final = 4
GATE_WIDTH: Final = 16  # of verdict and name


def render(answer: Answer, judged: Judged, leaving: Leaving, spares: Spares) -> list[str]:
    """The plan as a person reads it."""
    name = answer.node.name
    title = f"PLAN {judged.plan.hash}   {name}   pool {answer.pool or '(none)'}   "
    title += f"{judged.playbook.name} gen {judged.playbook.generation}   {_start(answer, judged)}"
    because = _because(judged.fault)
    lines = [title, *labelled("because", [f"{because}   machine {answer.machine}"])]
    lines += labelled("costs", [_costs(leaving, spares)])
    lines += ["", *table(("#", "STEP", "CHANGE", "UNDO"), [_step(line) for line in judged.plan.lines])]
    lines += ["", *_bands(leaving)]
    lines += ["", *_spares(spares)]
    lines += labelled("GATES", _gates(judged))
    if answer.notes:
        lines += labelled("NOT SEEN", answer.notes)
    lines += labelled(
        "HASH", ["holds until node, fault, spare, playbook or policy changes. Nothing was written."]
    )
    if answer.run is not None:
        lines += labelled("BUT", [headline(answer)])
    lines += labelled(
        "RUN IT", [f"remediator remediate {name} --plan {judged.plan.hash}", *_would_wait(judged)]
    )
    return [clip(line) for line in lines]


def as_json(answer: Answer, judged: Judged, leaving: Leaving, spares: Spares) -> dict[str, object]:
    """The plan for programs. Keys are only ever added within one major format version."""
    return {
        "format_version": FORMAT_VERSION,
        "hash": judged.plan.hash,
        "at": answer.now.isoformat(),
        "term": answer.term,
        "node": {"name": answer.node.name, "uid": answer.node.uid, "pool": answer.pool},
        "machine": answer.machine,
        "playbook": {"name": judged.playbook.name, "generation": judged.playbook.generation},
        "fault": _fault_json(judged.fault),
        "starts_by_itself": judged.stop is None,
        "blocked_by": judged.stop.stop if judged.stop is not None else None,
        "asked_blocked_by": judged.asked.stop if judged.asked is not None else None,
        "open_run": answer.run.metadata.name if answer.run is not None else None,
        "steps": [dict(zip(("number", "action", "change", "undo"), _step(line), strict=True))
                  for line in judged.plan.lines],
        "pods": _pods_json(leaving),
        "spare": spares.chosen or None,
        "spares": [{"name": name, "where": where} for name, where in spares.next],
        "spares_refused": [{"name": name, "reason": why} for name, why in spares.refused],
        "gates": [
            {"gate": gate, "verdict": verdict.split(" ")[0], "reason": reason or None, "numbers": numbers}
            for _, gate, verdict, reason, numbers in gate_rows(judged)
        ],
        "notes": list(answer.notes),
    }  # fmt: skip


def _would_wait(judged: Judged) -> list[str]:
    asked = judged.asked
    return (
        [f"it would wait at gate {asked.gate} ({asked.stop}): {asked.numbers}"] if asked is not None else []
    )


def _start(answer: Answer, judged: Judged) -> str:
    if answer.run is not None:
        return "a run is open already"
    if judged.fault is None:
        return "no fault: starts only when a person asks"
    if judged.stop is None:
        return "starts by itself"
    return f"gate {judged.stop.gate} ({judged.stop.stop}): will not start by itself"


def _because(fault: Fault | None) -> str:
    if fault is None:
        return "somebody asks; no fault of this playbook is confirmed"
    return "; ".join(fault_lines(fault))


def _costs(leaving: Leaving, spares: Spares) -> str:
    words = []
    if leaving.known:
        words.append(f"{how_many(leaving.count, 'pod')} with {how_many(leaving.gpus, 'GPU')} leave")
    words += [f"gang {gang} restarts whole" for gang in leaving.gangs[:2]]
    if len(leaving.gangs) > 2:
        words.append(f"and {how_many(len(leaving.gangs) - 2, 'gang')} more")
    if spares.wanted:
        fit = len(spares.next) + bool(spares.chosen)
        words.append(f"1 of {how_many(fit, 'spare')}" if fit else "no spare")
    return ", ".join(words) or "nothing"


def _step(line: str) -> tuple[str, str, str, str]:
    """``1 quarantine: CHANGE [undo: yes]`` into its four columns; a clipped line keeps what it has."""
    head, _, rest = line.partition(": ")
    number, _, action = head.partition(" ")
    change, _, undo = rest.rpartition(" [undo: ")
    if not change:
        change, undo = rest, "?"
    return number, action, change, undo.rstrip("]").split(":", 1)[0]


def _bands(leaving: Leaving) -> list[str]:
    if not leaving.known:
        return ["pods are not read: the playbook drains nothing"]
    if not leaving.bands:
        return [f"no pod has to leave; {_staying(leaving)}"]
    rows = [
        (
            str(number),
            clip(shortened(band.pods, PODS_SHOWN), 40),
            str(band.priority),
            band.qos,
            clip(shortened(band.pdbs, 1) or "-", 26),
            f"{band.grace_s}s",
            ", ".join(band.notes),
        )
        for number, band in enumerate(leaving.bands, start=1)
    ]
    header = ("BAND", "LEAVING", "PRIORITY", "QOS", "PDB", "GRACE", "")
    return [*table(header, rows, right=(2, 5)), *labelled("stay", [_staying(leaving)], 6)]


def _staying(leaving: Leaving) -> str:
    words = [how_many(leaving.daemons, "DaemonSet pod"), how_many(leaving.mirrors, "mirror pod")]
    words += [f"{leaving.critical} of a system priority class"] if leaving.critical else []
    words += [f"{leaving.finished} finished"] if leaving.finished else []
    return ", ".join(words)


def _spares(spares: Spares) -> list[str]:
    if not spares.wanted:
        return labelled("SPARE", ["none: the playbook swaps nothing, or the node is in no pool"])
    lines = [f"{spares.chosen}: {spares.where}" if spares.chosen else "none fits"]
    if spares.next:
        lines.append("then " + shortened([f"{name}: {where}" for name, where in spares.next], 2))
    lines += [f"refused: {name}: {why}" for name, why in spares.refused[:REFUSED_SHOWN]]
    if len(spares.refused) > REFUSED_SHOWN:
        lines.append(f"refused: {len(spares.refused) - REFUSED_SHOWN} more")
    return labelled("SPARE", lines)


def _gates(judged: Judged) -> list[str]:
    """Every gate with its numbers, as `why` has them; long numbers are wrapped below themselves."""
    rows = gate_rows(judged)
    fine = sum(verdict == "ok" for _, _, verdict, _, _ in rows)
    lines = [f"{fine} of {len(rows)} ok"]
    for _, gate, verdict, reason, numbers in rows:
        said = f"{reason}: {numbers}" if reason else numbers
        head = f"{verdict.split(' ')[0]:<4}  {gate}"
        lines += labelled(head, [said], GATE_WIDTH, whole=WIDTH - LABEL_WIDTH)
    return lines


def _fault_json(fault: Fault | None) -> dict[str, object] | None:
    if fault is None:
        return None
    return {
        "class": fault.fault_class,
        "severity": fault.severity.value,
        "first_seen": fault.first_seen.isoformat(),
        "confirmed_at": fault.confirmed_at.isoformat(),
        "evidence": [
            {"source": each.source, "key": each.key, "gpu": each.gpu, "code": each.code, "text": each.text}
            for each in fault.evidence
        ],
    }


def _pods_json(leaving: Leaving) -> dict[str, object] | None:
    if not leaving.known:
        return None
    return {
        "leave": leaving.count,
        "gpus": leaving.gpus,
        "gangs": list(leaving.gangs),
        "bands": [
            {
                "pods": list(band.pods),
                "priority": band.priority,
                "qos": band.qos,
                "pdbs": list(band.pdbs),
                "grace_s": band.grace_s,
                "notes": list(band.notes),
            }
            for band in leaving.bands
        ],
        "stay": {
            "daemonset": leaving.daemons,
            "mirror": leaving.mirrors,
            "critical": leaving.critical,
            "finished": leaving.finished,
        },
    }
