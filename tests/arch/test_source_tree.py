"""The source tree keeps the rules that no linter checks, and the rules bite."""

from __future__ import annotations

import ast
import subprocess
from pathlib import Path, PurePath

import pytest

from tests.arch import source_rules as rules

ROOT = Path(__file__).resolve().parents[2]


def tracked() -> list[Path]:
    """Return every file that is committed, or would be by ``git add``, by path."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
        timeout=30,
    ).stdout
    paths = (ROOT / name for name in sorted(set(filter(None, listed.split("\0")))))
    return [path for path in paths if path.is_file()]


FILES = tracked()
SOURCES = [path for path in FILES if path.suffix == ".py"]
VIRTUAL = ("runtime", "core", "model", "ports.py")  # the same in production and in virtual time
UNIT = [path for path in SOURCES if path.is_relative_to(ROOT / "tests" / "unit")]
OURS = [path for path in SOURCES if path.is_relative_to(ROOT / "remediator")]


def findings(per_file: dict[Path, list[str]]) -> list[str]:
    return [f"{path.relative_to(ROOT)}: {finding}" for path, found in per_file.items() for finding in found]


def test_tree_is_seen():
    """A listing that came back empty would make every test below pass."""
    assert ROOT / "remediator" / "errors.py" in OURS
    assert ROOT / "pyproject.toml" in FILES


def test_no_file_is_too_long():
    """A file that must be scrolled is a file whose second half nobody reviews."""
    assert findings({path: rules.long_file(path.read_text("utf-8")) for path in SOURCES}) == []


def test_no_module_has_a_vague_name():
    """Whatever fits nowhere gathers in a module called utils."""
    assert findings({path: rules.vague_name(path.relative_to(ROOT)) for path in SOURCES}) == []


def test_no_function_is_too_long():
    """A decision has to fit on a screen."""
    assert findings({path: rules.long_functions(ast.parse(path.read_bytes())) for path in SOURCES}) == []


def test_no_mutable_state_is_shared():
    """Two controllers in one process, as in every simulation, must not see each other."""
    assert findings({path: rules.mutable_state(ast.parse(path.read_bytes())) for path in OURS}) == []


def test_no_dice_are_rolled_without_a_seed():
    """What the system's own dice decided can never be played again."""
    assert findings({path: rules.unseeded_dice(ast.parse(path.read_bytes())) for path in SOURCES}) == []


def test_no_wait_inside_ends_by_the_loops_clock():
    """In virtual time it would never end, or end at once."""
    inside = [path for path in OURS if path.relative_to(ROOT / "remediator").parts[0] in VIRTUAL]

    assert inside
    assert findings({path: rules.real_time_limits(ast.parse(path.read_bytes())) for path in inside}) == []


def test_no_unit_test_has_a_socket():
    """Thousands of them run in seconds, anywhere, because nothing in them waits for a machine."""
    assert UNIT
    assert findings({path: rules.real_sockets(ast.parse(path.read_bytes())) for path in UNIT}) == []


def test_no_unit_test_really_pauses():
    """A pause that is long enough here is too short on a busy machine, and too long for thousands."""
    assert findings({path: rules.real_pauses(ast.parse(path.read_bytes())) for path in UNIT}) == []


def test_no_file_names_a_registry():
    """The project must build behind any mirror, so where packages come from is the machine's affair."""
    assert findings({path: rules.registry_hosts(path.read_text("utf-8", "replace")) for path in FILES}) == []


@pytest.mark.parametrize(("lines", "found"), [(500, 0), (501, 1)], ids=["at the limit", "above"])
def test_long_file_bites(lines, found):
    """The limit itself is allowed."""
    assert len(rules.long_file("x = 1\n" * lines)) == found


@pytest.mark.parametrize(
    ("path", "found"),
    [("core/utils.py", 1), ("helpers/drain.py", 1), ("runtime/Manager.py", 1), ("core/drain.py", 0)],
)
def test_vague_name_bites(path, found):
    """Folders count as much as files."""
    assert len(rules.vague_name(PurePath(path))) == found


@pytest.mark.parametrize("host", rules.REGISTRY_HOSTS)
def test_registry_hosts_bite(host):
    """Case does not hide a host."""
    assert rules.registry_hosts(f"see https://{host.upper()}/simple") != []


@pytest.mark.parametrize(
    ("body", "docstring", "found"),
    [(59, 0, 0), (60, 0, 1), (58, 30, 0)],
    ids=["at the limit", "above", "docstring does not count"],
)
def test_long_functions_bites(body, docstring, found):
    """The line of the ``def`` counts; a long docstring is no reason to split a function."""
    text = ['    """Say it.', *["    more"] * (docstring - 2), '    """'] if docstring else []
    source = "\n".join(["async def f():", *text, *["    pass"] * body])

    assert len(rules.long_functions(ast.parse(source))) == found


@pytest.mark.parametrize(
    "source",
    [
        "seen = {}",
        "seen: set[str] = set()",
        "_cache = collections.defaultdict(list)",
        "class A:\n    rows = []",
        "class A:\n    rows: list[str] = []",
        "class A(B):\n    rows: ClassVar[list[str]] = []",
        "class A(Struct):\n    rows: list[str] = [1]",
        "names = [n for n in x]",
        "def f():\n    global G\n    G = 1",
    ],
)
def test_mutable_state_bites(source):
    """Each way to share a value that somebody can change."""
    assert len(rules.mutable_state(ast.parse(source))) == 1


@pytest.mark.parametrize(
    "source",
    [
        "NEXT = {1: 2}",
        "_ROWS: Final = [1]",
        "__all__ = ['a']",
        "x = (1, 2)",
        "def f():\n    x = []",
        "log = get()",
    ],
)
def test_mutable_state_lets_constants_and_locals_be(source):
    """A rule that cries wolf gets switched off."""
    assert rules.mutable_state(ast.parse(source)) == []


@pytest.mark.parametrize(
    "source",
    [
        "import random\nR = random.Random()",
        "from random import Random\nR = Random()",
        "from random import Random as Dice\nR = Dice(None)",
        "import random as r\nR = r.Random(seed or None)",
        "from random import Random\nclass A:\n    rng: Random = field(default_factory=Random)",
    ],
)
def test_unseeded_dice_bites(source):
    """Each way to let the system choose, under each name."""
    assert len(rules.unseeded_dice(ast.parse(source))) == 1


@pytest.mark.parametrize(
    "source",
    [
        "from random import Random\nR = Random(4)",
        "from random import Random\nR = Random(seed)",
        "import random\ndef f(rng: random.Random) -> random.Random: return rng",
        "class Random: pass\nR = Random()",
    ],
)
def test_unseeded_dice_lets_seeds_and_types_be(source):
    """Dice that are handed in are what everybody is asked to take."""
    assert rules.unseeded_dice(ast.parse(source)) == []


@pytest.mark.parametrize(
    "source",
    [
        "import asyncio\nasync def f():\n    async with asyncio.timeout(1): pass",
        "from asyncio import wait_for as limit\nasync def f(): await limit(g(), 1)",
        "import asyncio\nasync def f(): await asyncio.wait(x, timeout=1)",
        "import asyncio\nT = asyncio.get_running_loop().time()",
        "def f(loop): loop.call_later(1, g)",
    ],
)
def test_real_time_limits_bites(source):
    """A time-out is a clock too."""
    assert len(rules.real_time_limits(ast.parse(source))) == 1


def test_real_time_limits_lets_waits_of_our_own_be():
    """``Store.wait_for`` takes its clock from outside; waiting for the first of two tasks needs none."""
    source = "import asyncio\nasync def f(store): await store.wait_for('7', 5.0); await asyncio.wait(x)"

    assert rules.real_time_limits(ast.parse(source)) == []


@pytest.mark.parametrize(
    "source",
    [
        "import socket",
        "import http.server as pages",
        "from http import server",
        "from urllib.request import urlopen",
        "from aiohttp import web",
        "from remediator.testbed.pipe import Pipe",
        "from remediator.testbed.waiting import wait_until",
        "from tests.contract.loopback import serve",
        "import asyncio\nasync def f(): await asyncio.start_server(g, '127.0.0.1', 0)",
        "async def f(loop): await loop.create_connection(g, '127.0.0.1', 1)",
    ],
)
def test_real_sockets_bites(source):
    """By module, by member, and by what asyncio offers without an import of its own."""
    assert len(rules.real_sockets(ast.parse(source))) == 1


@pytest.mark.parametrize(
    "source",
    [
        "import http\nGONE = http.HTTPStatus.GONE",
        "from urllib.parse import urlsplit",
        "import socketless",
        "from remediator.testbed.waiting import WaitExpiredError",
        "from tests.unit.core.builders import a_run",
        "start_server = connect = 1",
    ],
)
def test_real_sockets_lets_names_be(source):
    """Statuses, addresses and error types touch nothing."""
    assert rules.real_sockets(ast.parse(source)) == []


CLOCK = "from remediator.adapters.clock import SystemClock\n"


@pytest.mark.parametrize(
    "source",
    [
        CLOCK + "async def f(): await SystemClock().sleep(0.1)",
        CLOCK + "async def f():\n    clock = SystemClock()\n    await clock.sleep(seconds)",
        "import remediator.adapters.clock as c\nasync def f(): await c.SystemClock().sleep(1)",
        "from tests.unit.adapters.kube.manual_clock import REAL\nasync def f(): await REAL.sleep(0.01)",
    ],
)
def test_real_pauses_bites(source):
    """However short, and whoever made the clock."""
    assert len(rules.real_pauses(ast.parse(source))) == 1


@pytest.mark.parametrize(
    "source",
    [
        CLOCK + "REAL = SystemClock()\nasync def f(): await REAL.sleep(0)",
        "async def f(world): await world.clock.sleep(2.0)",
        "async def f(clock): await clock.sleep(5)",
    ],
)
def test_real_pauses_lets_yields_and_moved_clocks_be(source):
    """Zero lets the others run once, which is how a clock that the test moves gets them to run."""
    assert rules.real_pauses(ast.parse(source)) == []
