"""``remediator chaos``: judge a controller, ours or any other, by what the API server wrote down of it."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import click

from remediator.cli import exits
from remediator.cli.exits import Stop

if TYPE_CHECKING:
    from remediator.chaos.check import Report
    from remediator.chaos.history import Outcome
    from remediator.chaos.profile import Profile
    from remediator.chaos.schedule import ControllerName, Schedule

SHOWN_MAX = 5
TOLD_EVERY = 10


_workers = click.option(
    "--workers", type=click.IntRange(1, 64), default=1, show_default=True, help="Processes."
)


@click.group()
def chaos() -> None:
    """Find harm in what a controller has done. Needs no cluster."""


@chaos.command()
@click.option(
    "--audit-log",
    "path",
    type=click.Path(path_type=Path),
    required=True,
    help="Written by the API server; may be gzipped.",
)
@click.option(
    "--profile", "name", default="remediator", show_default=True, help="A shipped one, or a YAML file."
)
@click.option("--user", default="", help="The controller's user, where it is not the profile's.")
@click.option(
    "--own-key", "keys", multiple=True, help="One more key of Nodes that it may write; KEY/ for a prefix."
)
@click.option(
    "-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True, help="Form."
)
def check(path: Path, name: str, user: str, keys: tuple[str, ...], output: str) -> None:
    """Judge one controller by an audit log, rule by rule. The log is read once, a line at a time.

    Ends with 13 when a rule is broken. A rule that can't be judged says why, and breaks nothing.

    Example: remediator chaos check --audit-log audit.log --own-key example.com/pool
    """
    import msgspec

    from remediator.adapters.audit import read_records
    from remediator.chaos.check import check as judge

    report = judge(read_records(path), _profile(name, user, keys))
    if not report.own:
        seen = f"; there are, for example: {', '.join(report.users[:SHOWN_MAX])}" if report.users else ""
        raise Stop(f"{path}: no request of {report.user} in {report.records} records{seen}")
    if output == "json":
        click.echo(msgspec.json.format(msgspec.json.encode(report), indent=2).decode())
    else:
        for line in render(report):
            click.echo(line)
    sys.exit(exits.CHECK_FAILED if report.broken else exits.OK)


@chaos.command()
@click.option("--seeds", "text", required=True, help="A..B: each seed is one history.")
@_workers
@click.option(
    "--keep",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("chaos-broken"),
    show_default=True,
    help="Where histories that broke a rule are kept.",
)
@click.option(
    "-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True, help="Form."
)
@click.option(
    "--controller",
    type=click.Choice(["remediator", "reference"]),
    default="remediator",
    show_default=True,
    help="Who is played; reference is there to be broken.",
)
@click.option("--bug", "bugs", multiple=True, help="Planted in the reference controller, by its name.")
@click.option(
    "--results",
    type=click.Path(path_type=Path, dir_okay=False),
    default=None,
    help="A line for each history; what stands there already is not played again.",
)
@click.option(
    "--junit", type=click.Path(path_type=Path, dir_okay=False), default=None, help="All of it as JUnit XML."
)
def run(
    text: str, workers: int, folder: Path, output: str, controller: ControllerName, bugs: tuple[str, ...],
    results: Path | None, junit: Path | None,
) -> None:  # fmt: skip
    """Play histories full of faults on a simulated cluster, and judge each by its audit log.

    Ends with 13 when a rule is broken; the history is kept as a file that replays.

    Example: remediator chaos run --seeds 1..100 --workers 2 --results chaos.jsonl
    """
    campaign = _campaign()
    from remediator.adapters.clock import SystemClock
    from remediator.chaos import results as book

    campaign.hush()
    wanted = campaign.drawn(campaign.seeds(text), controller, bugs)
    known = book.read_results(results) if results is not None else []
    done, left = book.parted(wanted, known)
    if done:
        click.echo(f"{len(done)} of {len(wanted)} histories stand in {results} already", err=True)
    clock = SystemClock()
    began_s = clock.monotonic()
    for number, outcome in enumerate(book.kept(campaign.run(left, workers=workers), results), start=1):
        _tell(outcome, output)
        done.append(book.result_of(outcome))
        if number % TOLD_EVERY == 0:
            click.echo(f"  {book.time_left(number, len(left), clock.monotonic() - began_s)}", err=True)
        if outcome.broken:
            path = campaign.keep(outcome, folder)
            click.echo(f"  again: remediator chaos replay {path}", err=True)
    if junit is not None:
        junit.write_bytes(book.junit(done))
    broken = sum(bool(each.broken) for each in done)
    for line in book.coverage(done):
        click.echo(line, err=True)
    click.echo(f"{len(done)} histories, {broken} broken", err=True)
    sys.exit(exits.CHECK_FAILED if broken else exits.OK)


@chaos.command("list")
def list_scenarios() -> None:
    """Show the scenarios that come with the program, a line each."""
    _campaign()
    from remediator.chaos.scenario import shipped

    for each in shipped():
        click.echo(f"{each.name:26} {each.schedule.controller:11} {each.summary}")


@chaos.command()
@click.argument("names", nargs=-1, metavar="[NAME|FILE ...]")
@_workers
@click.option(
    "--variants",
    "varied",
    is_flag=True,
    help="Also with other dice, replicas and racks: the same has to come.",
)
def scenario(names: tuple[str, ...], workers: int, varied: bool) -> None:
    """Play scenarios, shipped ones by name or your own files, and compare with what they expect.

    Ends with 13 where something else came of one. A fault or an event that never struck is a failure too.

    Example: remediator chaos scenario frozen-leader my-scenario.yaml
    """
    campaign = _campaign()
    from remediator.chaos import scenario as scenarios

    chosen = [scenarios.named(name) for name in names] if names else list(scenarios.shipped())
    if varied:
        chosen += [variant for each in chosen for variant in scenarios.variants(each)]
    campaign.hush()
    failed = 0
    outcomes = campaign.run([each.schedule for each in chosen], workers=workers)
    for each, outcome in zip(chosen, outcomes, strict=True):
        found = scenarios.failures(each, outcome)
        failed += bool(found)
        click.echo(f"{each.name}: {'FAILED' if found else 'as expected'}; {outcome.report.own} requests")
        for line in found:
            click.echo(f"  {line}")
    click.echo(f"{len(chosen)} scenarios, {failed} failed", err=True)
    sys.exit(exits.CHECK_FAILED if failed else exits.OK)


@chaos.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.option(
    "-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True, help="Form."
)
def replay(path: Path, output: str) -> None:
    """Play one kept history again: the same requests, the same verdict.

    Example: remediator chaos replay chaos-broken/seed-42.json
    """
    campaign = _campaign()
    campaign.hush()
    outcome = next(campaign.run([campaign.load(path)]))
    _tell(outcome, output)
    sys.exit(exits.CHECK_FAILED if outcome.broken else exits.OK)


@chaos.command("shrink")
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--rule", "rules", multiple=True, help="What it has to break; default: what it breaks now.")
@click.option(
    "--to",
    "target",
    type=click.Path(path_type=Path, dir_okay=False),
    default=None,
    help="Where the small one goes; default: standard output.",
)
def shrink_history(path: Path, rules: tuple[str, ...], target: Path | None) -> None:
    """Leave out of a kept history whatever it does not need to break the same rule.

    Example: remediator chaos shrink chaos-broken/seed-42.json --to small.json
    """
    campaign = _campaign()
    from remediator.chaos.shrink import shrink

    campaign.hush()
    schedule = campaign.load(path)

    def tell(found: Schedule) -> None:
        click.echo(f"{len(found.faults)} faults, {len(found.events)} events", err=True)

    try:
        small = shrink(schedule, rules, tell=tell)
    except ValueError as error:
        raise Stop(f"{path}: {error}; nothing to shrink") from error
    text = campaign.written(small)
    if target is None:
        click.echo(text.decode(), nl=False)
    else:
        target.write_bytes(text)


@chaos.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.option(
    "--to",
    "target",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("chaos-report.html"),
    show_default=True,
    help="The page.",
)
def report(path: Path, target: Path) -> None:
    """Play one kept history again, and write a page about it that needs nothing else.

    Its time as a picture, the rules that broke, the audit records that prove it, and how to replay it.

    Example: remediator chaos report chaos-broken/seed-42.json --to seed-42.html
    """
    campaign = _campaign()
    from remediator.chaos.reporting import report_on

    campaign.hush()
    outcome, text = report_on(campaign.load(path), again=f"remediator chaos replay {path}")
    target.write_text(text, encoding="utf-8")
    click.echo(f"{target}: {', '.join(outcome.broken) or 'every rule held'}")
    sys.exit(exits.CHECK_FAILED if outcome.broken else exits.OK)


@chaos.command()
@click.option("--bug", "names", multiple=True, help="One by its name; more than once. Default: all.")
@click.option("--runs", type=click.IntRange(1, 100), default=1, show_default=True, help="Of each bug.")
@click.option(
    "--most", type=click.IntRange(1, 10_000), default=200, show_default=True, help="Histories in a run."
)
@_workers
def corpus(names: tuple[str, ...], runs: int, most: int, workers: int) -> None:
    """Plant each bug in the reference controller, and count the histories until a rule is broken.

    No run takes seeds of another; when more than half have found a bug its median is known, and all of them
    end. Ends with 13 where that does not come to pass.

    Example: remediator chaos corpus --bug name-as-key --runs 20 --workers 2
    """
    campaign = _campaign()
    from remediator.chaos import corpus as planted

    campaign.hush()
    missed = 0
    for found in planted.hunt(planted.named(names), runs=runs, most=most, workers=workers):
        missed += found.median is None
        click.echo(planted.told(found))
    sys.exit(exits.CHECK_FAILED if missed else exits.OK)


@chaos.command("crash-points")
@click.option(
    "--playbook", "names", multiple=True, help="A shipped one; more than once for several. Default: all."
)
@click.option(
    "--every", type=click.IntRange(1, 200), default=1, show_default=True, help="Each Nth point only."
)
@click.option(
    "--pairs",
    type=click.IntRange(0, 100_000),
    default=0,
    show_default=True,
    help="And so many pairs of points.",
)
@click.option("--seed", type=int, default=1, show_default=True, help="Of the pairs, where there are more.")
@_workers
def crash_points(names: tuple[str, ...], every: int, pairs: int, seed: int, workers: int) -> None:
    """Kill the controller at each of its writes: before it, after it, and with the reply lost.

    The end must be that of the history without a crash. Ends with 13 where it is not.

    Example: remediator chaos crash-points --playbook gpu-off-bus --every 10 --pairs 20
    """
    campaign = _campaign()
    from remediator.chaos import crash_points as points

    campaign.hush()
    unknown = [name for name in names if name not in points.STARTS]
    if unknown:
        raise click.UsageError(f"no playbook {unknown[0]}; one of {', '.join(points.STARTS)}")
    different = 0
    for name in names or points.STARTS:
        expected, writes = points.reference(name)
        single = [(crash,) for crash in list(points.crashes(len(writes)))[::every]]
        double = points.pairs(len(writes), pairs, seed) if pairs else []
        idle = 0
        for played in campaign.spread(
            points.play_case, [points.Case(name, each) for each in (*single, *double)], workers=workers
        ):
            idle += played.struck < len(played.case.crashes)
            found = points.difference(expected, played.outcome)
            different += bool(found)
            at = " and ".join(f"{each.fate.value} write {each.write}" for each in played.case.crashes)
            for line in found:
                click.echo(f"{name}, {at} ({writes[played.case.crashes[0].write]}): {line}")
        click.echo(
            f"{name}: {len(writes)} writes, {len(single)} points and {len(double)} pairs played, "
            f"{idle} of them idle"
        )
    sys.exit(exits.CHECK_FAILED if different else exits.OK)


@chaos.command()
@click.option(
    "--depth", type=click.IntRange(1, 8), default=4, show_default=True, help="Writes whose fate is chosen."
)
@_workers
def interleavings(depth: int, workers: int) -> None:
    """Play a small cluster in every order of its messages: three nodes, a spare, two replicas, two faults.

    Each of the first writes after the fault arrives at once, late, after a Lease's time, or is answered late.
    Ends with 13 where a rule is broken, or a machine rebooted more than once.

    Example: remediator chaos interleavings --depth 3
    """
    campaign = _campaign()
    from remediator.chaos import interleavings as small

    campaign.hush()
    first, wrong = small.first_write(), 0
    tasks = [(first, order) for order in small.orders(depth)]
    for played in campaign.spread(small.play_order, tasks, workers=workers):
        found = small.wrong(played.outcome)
        wrong += bool(found)
        if found:
            fates = ", ".join(fate.value if fate else "at once" for fate in played.order.fates)
            click.echo(f"{fates}: {'; '.join(found)}")
    click.echo(f"{len(tasks)} orders of {depth} writes played, {wrong} of them wrong")
    sys.exit(exits.CHECK_FAILED if wrong else exits.OK)


def _campaign() -> ModuleType:
    """What plays histories."""
    with exits.simulator_packages():
        from remediator.chaos import campaign
    return campaign


def _tell(outcome: Outcome, output: str) -> None:
    import msgspec

    if output == "json":
        click.echo(msgspec.json.encode(outcome).decode())
        return
    schedule = outcome.schedule
    idle = len(outcome.idle_faults) + len(outcome.idle_events)
    click.echo(
        f"seed {schedule.seed}: {', '.join(outcome.broken) or 'held'}; "
        f"{len(schedule.faults)} faults, {len(schedule.events)} events, {idle} of them idle; "
        f"{outcome.report.own} requests, {outcome.starts} starts, {outcome.reboots} reboots"
    )
    if outcome.crash:
        click.echo(f"  it ended by itself: {outcome.crash}")
    for line in render(outcome.report) if outcome.broken else ():
        click.echo(f"  {line}")


def _profile(name: str, user: str, keys: tuple[str, ...]) -> Profile:
    from msgspec.structs import replace as changed

    from remediator.chaos.profile import Own, load_profile

    profile = load_profile(name)
    if user:
        profile = changed(profile, user=user)
    if not profile.user:
        raise click.UsageError(f"profile {profile.name} names no user; add --user NAME")
    if keys:
        own = profile.own or Own()
        profile = changed(profile, own=changed(own, keys=(*own.keys, *keys)))
    return profile


def render(report: Report) -> list[str]:
    """The scoreboard, and below it the records that broke a rule."""
    lines = [f"{report.profile}: {report.own} of {report.records} records are of {report.user}", ""]
    for each in report.verdicts:
        count = f"{each.broken} of {each.judged}" if each.broken else str(each.judged)
        lines.append(f"{each.rule:<4} {each.answer.upper():<8} {count:>12}  {each.sentence}")
        if each.why:
            lines.append(f"{'':<27}{each.why}")
    for each in report.verdicts:
        for found in each.findings[:SHOWN_MAX]:
            lines += [
                "",
                f"{each.rule} line {found.line}, {found.at:%Y-%m-%d %H:%M:%S} UTC, audit ID {found.audit_id}",
            ]
            lines += [f"  {found.request}", f"  {found.text}"]
        if each.broken > SHOWN_MAX:
            lines += [
                "",
                f"{each.rule}: {each.broken - SHOWN_MAX} more; -o json has {len(each.findings)} of them",
            ]
    return lines
