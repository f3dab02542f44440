"""The rules of the source tree that no linter checks. Each returns what breaks it, one line per finding."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import PurePath

FILE_LINES_MAX = 500
FUNCTION_LINES_MAX = 60
VAGUE_NAMES = frozenset({"utils", "util", "helpers", "helper", "common", "manager", "managers", "misc"})
# Written in two halves, so that this file does not break its own rule.
REGISTRY_HOSTS = tuple(
    f"{name}.{end}"
    for name, end in (
        ("pypi", "org"),
        ("pythonhosted", "org"),
        ("proxy.golang", "org"),
        ("sum.golang", "org"),
        ("npmjs", "org"),
        ("npmjs", "com"),
        ("debian", "org"),
        ("ubuntu", "com"),
        ("crates", "io"),
        ("repo.maven.apache", "org"),
        ("conda.anaconda", "org"),
        ("rubygems", "org"),
    )
)
_MUTABLE_DISPLAYS = (ast.Dict, ast.List, ast.Set, ast.DictComp, ast.ListComp, ast.SetComp)
_MUTABLE_MAKERS = frozenset(
    {
        "dict",
        "list",
        "set",
        "bytearray",
        "defaultdict",
        "deque",
        "Counter",
        "OrderedDict",
        "WeakValueDictionary",
    }
)

# Ways to wait or to ask for the time that need no banned name, only the running loop.
_LOOP_CLOCKS = frozenset({"call_later", "call_at"})
_LOOP_MAKERS = frozenset({"get_running_loop", "get_event_loop", "new_event_loop"})
_ASYNCIO_LIMITS = frozenset({"timeout", "timeout_at", "wait_for"})

# What a unit test must not import or call: sockets and their servers, real waits, and what has both.
_REAL_MODULES = (
    "aiohttp",
    "http.client",
    "http.server",
    "remediator.testbed.pipe",
    "remediator.testbed.waiting.wait_until",
    "socket",
    "socketserver",
    "tests.contract",
    "tests.e2e",
    "urllib.request",
)
_ASYNCIO_SOCKETS = frozenset(
    {"start_server", "start_unix_server", "open_connection", "open_unix_connection"}
    | {"create_server", "create_connection", "create_datagram_endpoint"}
)
_REAL_CLOCK = ("remediator.adapters.clock", "SystemClock")

Function = ast.FunctionDef | ast.AsyncFunctionDef


def long_file(source: str) -> list[str]:
    """Return a finding if ``source`` has more lines than a file may have."""
    lines = len(source.splitlines())
    return [f"{lines} lines, {FILE_LINES_MAX} at most: which second idea is in there?"] * (
        lines > FILE_LINES_MAX
    )


def vague_name(path: PurePath) -> list[str]:
    """Return a finding for each part of ``path`` that names no thing."""
    parts = (*path.parts[:-1], path.stem)
    return [
        f"the name {part!r} says nothing: name the thing" for part in parts if part.lower() in VAGUE_NAMES
    ]


def registry_hosts(text: str) -> list[str]:
    """Return a finding for each package registry named in ``text``, in the order of the table."""
    lowered = text.lower()
    return [
        f"names the registry {host}: machines have their own" for host in REGISTRY_HOSTS if host in lowered
    ]


def long_functions(tree: ast.Module) -> list[str]:
    """Return a finding for each function that is too long, by line. Its docstring does not count."""
    findings = []
    for node in ast.walk(tree):
        if isinstance(node, Function) and (lines := _code_lines(node)) > FUNCTION_LINES_MAX:
            findings.append(
                f"line {node.lineno}: {node.name} has {lines} lines, {FUNCTION_LINES_MAX} at most"
            )
    return sorted(findings)


def mutable_state(tree: ast.Module) -> list[str]:
    """Return a finding for each value at module or class level that a function could change."""
    findings = []
    for line, name, value in _shared_assignments(tree):
        constant = name.strip("_").isupper() or (name.startswith("__") and name.endswith("__"))
        if not constant and _is_mutable(value):
            findings.append(f"line {line}: {name} is mutable state; pass it in, or make it a constant")
    findings += [
        f"line {node.lineno}: global {', '.join(node.names)}; pass it in"
        for node in ast.walk(tree)
        if isinstance(node, ast.Global)
    ]
    return findings


def unseeded_dice(tree: ast.Module) -> list[str]:
    """Return a finding for each ``random.Random`` whose seed the system would choose, by line."""
    names = _names_of(tree, "random", "Random")
    made = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    findings = [
        f"line {call.lineno}: {ast.unparse(call)}: give it a seed that can be told"
        for call in made
        if _is_one_of(call.func, names) and (not call.args or any(map(_may_be_none, call.args)))
    ]
    # As a factory it is called without a seed by somebody else.
    findings += [
        f"line {value.lineno}: {ast.unparse(value)} is handed on to be called without a seed"
        for call in made
        for value in (*call.args, *(keyword.value for keyword in call.keywords))
        if _is_one_of(value, names)
    ]
    return sorted(findings)


def real_time_limits(tree: ast.Module) -> list[str]:
    """Return a finding for each wait that the event loop's own clock would end, by line.

    Meant for what has to run in virtual time; adapters bound real connections in real time.
    """
    limits = frozenset().union(*(_names_of(tree, "asyncio", name) for name in _ASYNCIO_LIMITS))
    waits = _names_of(tree, "asyncio", "wait")
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return [
        f"line {call.lineno}: {ast.unparse(call.func)} with a time: take the Clock port"
        for call in calls
        if _is_one_of(call.func, limits)
        or (_is_one_of(call.func, waits) and any(each.arg == "timeout" for each in call.keywords))
        or _asks_the_loop(call.func)
    ]


def real_sockets(tree: ast.Module) -> list[str]:
    """Return a finding for each import or call by which a unit test would meet a network, by line."""
    findings = [
        f"line {line}: imports {name}: what needs a socket or real time belongs into tests/contract"
        for line, name in _imports(tree)
        if any(f"{name}.".startswith(f"{real}.") for real in _REAL_MODULES)
    ]
    findings += [
        f"line {node.lineno}: {ast.unparse(node.func)}: what needs a socket belongs into tests/contract"
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in _ASYNCIO_SOCKETS
    ]
    return sorted(findings)


def real_pauses(tree: ast.Module) -> list[str]:
    """Return a finding for each pause of the real clock but ``sleep(0)``, which only yields, by line.

    The real clock is an instance of ``SystemClock``, one that the file names or imports in capitals.
    """
    makers = _names_of(tree, *_REAL_CLOCK)
    clocks = {
        target.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call)
        for target in node.targets
        if isinstance(target, ast.Name) and _is_one_of(node.value.func, makers)
    }
    findings = []
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Attribute(attr="sleep"), args=[ast.Constant(value=0)]):
                continue
            case ast.Call(func=ast.Attribute(value=ast.Call(func=maker), attr="sleep")):
                real = _is_one_of(maker, makers)
            case ast.Call(func=ast.Attribute(value=ast.Name(id=name), attr="sleep")):
                real = name in clocks or name.isupper()
            case _:
                continue
        if real:
            findings.append(f"line {node.lineno}: {ast.unparse(node)}: take a clock that the test moves")
    return sorted(findings)


def _imports(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield line and dotted name of everything that is imported, members of modules too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, each.name) for each in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield from ((node.lineno, f"{node.module}.{each.name}") for each in node.names)


def _asks_the_loop(called: ast.expr) -> bool:
    match called:
        case ast.Attribute(attr=name) if name in _LOOP_CLOCKS:
            return True
        case ast.Attribute(value=ast.Call(func=ast.Attribute(attr=maker)), attr="time"):
            return maker in _LOOP_MAKERS
    return False


def _names_of(tree: ast.Module, module: str, member: str) -> frozenset[str]:
    """Return every way in which this file can spell one member of a module."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {f"{each.asname or each.name}.{member}" for each in node.names if each.name == module}
        elif isinstance(node, ast.ImportFrom) and node.module == module:
            found |= {each.asname or each.name for each in node.names if each.name == member}
    return frozenset(found)


def _is_one_of(expression: ast.expr, names: frozenset[str]) -> bool:
    return isinstance(expression, ast.Name | ast.Attribute) and ast.unparse(expression) in names


def _may_be_none(expression: ast.expr) -> bool:
    return any(isinstance(each, ast.Constant) and each.value is None for each in ast.walk(expression))


def _code_lines(function: Function) -> int:
    first = function.body[0]
    documented = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
    docstring = (first.end_lineno or first.lineno) - first.lineno + 1 if documented else 0
    return (function.end_lineno or function.lineno) - function.lineno + 1 - docstring


def _shared_assignments(tree: ast.Module) -> Iterator[tuple[int, str, ast.expr]]:
    """Yield line, name and value of each assignment that all callers share."""
    scopes: list[ast.Module | ast.ClassDef] = [tree]
    scopes += [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    for scope in scopes:
        for statement in scope.body:
            if isinstance(statement, ast.Assign):
                for target in statement.targets:
                    if isinstance(target, ast.Name):
                        yield statement.lineno, target.id, statement.value
            elif (
                isinstance(statement, ast.AnnAssign)
                and isinstance(statement.target, ast.Name)
                and statement.value is not None
                and not _is_field_default(scope, statement)
            ):
                yield statement.lineno, statement.target.id, statement.value


def _is_field_default(scope: ast.Module | ast.ClassDef, statement: ast.AnnAssign) -> bool:
    # msgspec gives each instance its own copy of an empty default and refuses any other; dataclasses
    # refuse both. So in a class that derives from something, an empty one is a default, not state.
    empty = ast.unparse(statement.value) in {"{}", "[]"} if statement.value else False
    shared = ast.unparse(statement.annotation).startswith(("ClassVar", "typing.ClassVar"))
    return isinstance(scope, ast.ClassDef) and bool(scope.bases) and empty and not shared


def _is_mutable(value: ast.expr) -> bool:
    if isinstance(value, ast.Call):
        called = value.func
        name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
        return name in _MUTABLE_MAKERS
    return isinstance(value, _MUTABLE_DISPLAYS)
