"""The reflector and a real API server in trouble: frozen, cut off, restarted, compacted, too busy.

What each watch has to live through, and that in the end nothing was lost and nothing told twice.
"""

from __future__ import annotations

import asyncio
import json
import urllib.request
from base64 import b64encode
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import msgspec
import pytest

from remediator.adapters.kube.listing import ReflectorSettings
from remediator.adapters.kube.records import LEDGERS
from remediator.adapters.kube.reflector import Ending
from remediator.ports import Lane, Response, Transport
from remediator.testbed.api import Api, ApiError
from remediator.testbed.binaries import Binaries
from remediator.testbed.components import Options
from remediator.testbed.kubeconfig import Access, read, write
from remediator.testbed.launcher import ControlPlane
from remediator.testbed.pipe import Pipe
from remediator.testbed.waiting import wait_until
from tests.contract.live import connected, install_crds, until
from tests.contract.watched import Meddling, NotingClock, a_ledger, watched_ledgers

pytestmark = [pytest.mark.asyncio, pytest.mark.real_server]
FLOW = "/apis/flowcontrol.apiserver.k8s.io/v1"
BINDINGS = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings"
# Nothing waits long: what the limits are for is in each test.
HASTY = ReflectorSettings(
    idle_s=2.0, connect_timeout_s=1.0, list_timeout_s=1.0, backoff_first_s=0.1, backoff_max_s=0.2
)


@pytest.fixture
def group(request: pytest.FixtureRequest, api: Api) -> Iterator[str]:
    """A label value for this test's ledgers, which are removed afterwards."""
    install_crds(api)
    name = request.node.name.replace("_", "-").replace("[", "-").replace("]", "")[-60:].strip("-")
    yield name
    api.delete_all(LEDGERS, label_selector=f"test-group={name}")


@pytest.fixture(scope="module")
def plain_plane(
    control_plane_binaries: Binaries, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ControlPlane]:
    """A server without watch-lists, of this module alone: it is compacted and restarted."""
    options = Options(extra={"kube-apiserver": ("--feature-gates=WatchList=false",)})
    directory = tmp_path_factory.mktemp("plain") / "cluster"
    with ControlPlane(directory, control_plane_binaries, options) as plane:
        admin = plane.admin()
        install_crds(admin)
        admin.close()
        yield plane


@pytest.fixture
def plain(plain_plane: ControlPlane) -> Iterator[Api]:
    """Its administrator; every test begins without ledgers."""
    admin = plain_plane.admin()
    admin.delete_all(LEDGERS)
    yield admin
    admin.close()


@contextmanager
def piped(plane: ControlPlane, folder: Path) -> Iterator[tuple[Pipe, Path]]:
    """A pipe in front of the server, and a kubeconfig that leads through it."""
    with Pipe(plane.layout.api) as pipe:
        path = folder / "piped.kubeconfig"
        write(path, "admin", msgspec.structs.replace(read(plane.kubeconfig), server=pipe.url))
        yield pipe, path


def create(api: Api, group: str, *names: str) -> None:
    for name in names:
        api.create(LEDGERS, a_ledger(f"{group[:40]}-{name}", group))


def change(api: Api, group: str, name: str) -> None:
    api.merge_patch(f"{LEDGERS}/{group[:40]}-{name}", {"metadata": {"annotations": {"seen": "new"}}})


def delete(api: Api, group: str, name: str) -> None:
    api.delete(f"{LEDGERS}/{group[:40]}-{name}")


def named(group: str, *names: str) -> list[str]:
    return [f"{group[:40]}-{name}" for name in names]


def turn_over(api: Api, group: str) -> list[tuple[str, str]]:
    """Of a, b and c change a, delete b, leave c and create d. Return what must be told of it."""
    change(api, group, "a")
    delete(api, group, "b")
    create(api, group, "d")
    a, b, d = named(group, "a", "b", "d")
    return [(a, "changed"), (b, "deleted"), (d, "added")]


@pytest.mark.parametrize("watch_list", [True, False], ids=["watch-list", "pages"])
async def test_a_frozen_watch_is_noticed_and_the_difference_told_once(
    control_plane: ControlPlane, api: Api, group: str, tmp_path: Path, watch_list: bool
):
    """A half-open connection says nothing for ever, and the network is away while it lists again.

    Until the server is heard nothing counts as deleted. Then each difference is told once, by name,
    and whoever hears of the first one already finds the last one in the cache.
    """
    create(api, group, "a", "b", "c")
    with piped(control_plane, tmp_path) as (pipe, path):
        async with connected(path) as transport:
            watched = watched_ledgers(transport, group, watch_list=watch_list, settings=HASTY)
            async with watched.running():
                change(api, group, "c")
                await until(lambda: len(watched.told) == 4, "watch lives")
                watched.forget()
                assert pipe.hold_replies() > 0
                pipe.accept_only()
                expected = turn_over(api, group)
                reflector = watched.reflector
                await until(lambda: reflector.endings[Ending.RESET], "failed to list again")
                assert reflector.endings[Ending.SILENT] >= 1  # a quiet watch ends so by itself, too
                assert reflector.state().broken_since is not None
                assert (watched.news(), sorted(watched.store)) == ([], named(group, "a", "b", "c"))

                pipe.resume()
                await until(lambda: len(watched.told) >= len(expected), "difference told")
                change(api, group, "d")  # and it goes on
                await until(lambda: len(watched.told) > len(expected), "next event told")

    assert watched.news() == [*expected, (named(group, "d")[0], "changed")]
    assert watched.shown == [named(group, "a", "c", "d")] * 4
    assert reflector.alarms == 0
    assert reflector.relists >= 2
    assert reflector.state().broken_since is None


@pytest.mark.watch_list
async def test_bookmarks_of_the_server_keep_a_quiet_kind_fresh(
    control_plane: ControlPlane, api: Api, group: str
):
    """Nothing of ours changes; the version goes on all the same, so that no watch is ever too old."""
    create(api, group, "a")
    settings = ReflectorSettings(watch_s_min=4, watch_s_max=4, backoff_first_s=0.1)
    async with connected(control_plane.kubeconfig) as transport:
        meddling = Meddling(transport)
        watched = watched_ledgers(meddling, group, settings=settings)
        async with watched.running():
            first = watched.store.version
            other = api.create(LEDGERS, a_ledger(f"{group[:40]}-x", f"{group[:50]}-x"))
            try:
                elsewhere = other["metadata"]["resourceVersion"]
                assert await watched.store.wait_for(elsewhere, 15.0)
                proved = watched.store.version
                await until(lambda: len(meddling.watches) > 1, "watch opened again")
            finally:
                api.delete(f"{LEDGERS}/{group[:40]}-x")

    # The server ends a watch when the time is over that was asked for, with a bookmark shortly before.
    assert first < int(elsewhere) <= proved
    assert int(meddling.watches[1]["resourceVersion"]) >= proved
    assert meddling.watches[1]["allowWatchBookmarks"] == "true"
    assert watched.reflector.endings[Ending.CLEAN] == 1
    assert (watched.news(), watched.reflector.relists) == ([(named(group, "a")[0], "added")], 1)


async def test_watches_that_are_cut_before_any_proof_end_in_a_list(
    control_plane: ControlPlane, api: Api, group: str, tmp_path: Path
):
    """A proxy that cuts every watch before its first bookmark must not leave a quiet kind in doubt."""
    create(api, group, "a")
    with piped(control_plane, tmp_path) as (pipe, path):
        async with connected(path) as transport:
            watched = watched_ledgers(transport, group, settings=HASTY)
            async with watched.running():
                store, reflector = watched.store, watched.reflector
                while (store.age_s() or 0.0) <= HASTY.idle_s and reflector.relists == 1:
                    pipe.cut()
                    await asyncio.sleep(0.02)
                pipe.cut()  # one that began just before the time was over
                await until(lambda: reflector.relists > 1, "listed again")

                assert reflector.endings[Ending.RESET] > 1
                assert reflector.endings[Ending.SILENT] == 0
                assert (watched.news(), reflector.alarms) == ([(named(group, "a")[0], "added")], 0)


@pytest.mark.watch_list
async def test_what_the_server_sends_again_is_dropped(control_plane: ControlPlane, api: Api, group: str):
    """After a reconnect it may begin earlier than we asked: nothing is told twice, nothing comes back."""
    async with connected(control_plane.kubeconfig) as transport:
        meddling = Meddling(transport)
        watched = watched_ledgers(meddling, group)
        async with watched.running():
            create(api, group, "a", "b", "gone")
            delete(api, group, "gone")
            a, b, gone = named(group, "a", "b", "gone")
            await until(lambda: (gone, "deleted") in watched.news(), "all seen")
            watched.forget()
            first = int(api.get(f"{LEDGERS}/{a}")["metadata"]["resourceVersion"])
            meddling.next_version = str(first - 1)
            meddling.cut.set()
            create(api, group, "c")
            create(api, group, "d")
            await until(lambda: len(watched.told) == 2, "events behind the replay")

    assert len(meddling.watches) == 2
    assert watched.news() == [(name, "added") for name in named(group, "c", "d")]
    assert sorted(watched.store) == sorted([a, b, *named(group, "c", "d")])
    assert watched.reflector.stale >= 5  # a, b, gone, gone again and c
    assert (watched.reflector.alarms, watched.reflector.relists) == (0, 1)


# -- a server without watch-lists, which is compacted and restarted


async def test_a_server_without_watch_lists_is_listed_in_pages(plain_plane: ControlPlane, plain: Api):
    """It is asked once; from then on every list is in pages."""
    create(plain, "pages", "a", "b", "c")
    async with connected(plain_plane.kubeconfig) as transport:
        meddling = Meddling(transport)
        watched = watched_ledgers(meddling, "pages", settings=ReflectorSettings(page_items=2))
        async with watched.running():
            change(plain, "pages", "a")
            await until(lambda: len(watched.told) == 4, "first watch lives")
            meddling.next_version = "1"  # from before the kind was there: too old
            meddling.cut.set()
            change(plain, "pages", "b")
            await until(lambda: len(meddling.watches) == 4, "listed again")

    assert ["sendInitialEvents" in each for each in meddling.watches] == [True, False, False, False]
    assert [each.get("limit") for each in meddling.lists] == ["2"] * 4
    assert [bool(each.get("continue")) for each in meddling.lists] == [False, True] * 2
    endings = watched.reflector.endings
    assert (endings[Ending.NO_WATCH_LIST], endings[Ending.EXPIRED], watched.reflector.relists) == (1, 1, 2)


async def test_pages_are_of_one_moment(plain_plane: ControlPlane, plain: Api):
    """What happens between two pages comes by the watch, once, and is not in half of the list."""
    create(plain, "moment", "b", "c", "d")
    async with connected(plain_plane.kubeconfig) as transport:
        meddling = Meddling(transport)

        def meanwhile(query: Mapping[str, str], _: Response) -> None:
            if "continue" not in query:
                create(plain, "moment", "a", "e")
                delete(plain, "moment", "d")

        meddling.behind_page = meanwhile
        settings = ReflectorSettings(page_items=1)
        watched = watched_ledgers(meddling, "moment", settings=settings, watch_list=False)
        async with watched.running():
            await until(lambda: len(watched.told) >= 6, "events behind the list")

    a, b, c, d, e = named("moment", "a", "b", "c", "d", "e")
    listed = [(b, "added"), (c, "added"), (d, "added")]
    assert watched.news() == [*listed, (a, "added"), (e, "added"), (d, "deleted")]
    assert watched.shown[0] == [b, c, d]
    assert len(meddling.lists) == 3
    assert (watched.reflector.relists, watched.reflector.stale, watched.reflector.alarms) == (1, 0, 0)


def compact(plane: ControlPlane) -> None:
    """Forget all history, as the API servers' own compactor does every five minutes.

    They learn of it by a key that whoever compacts writes first.
    """
    etcd = f"http://127.0.0.1:{plane.layout.etcd}/v3/kv"
    key = b64encode(b"compact_rev_key").decode()

    def call(name: str, body: object) -> dict[str, dict[str, str]]:
        asked = urllib.request.Request(f"{etcd}/{name}", json.dumps(body).encode())
        with urllib.request.urlopen(asked, timeout=10) as reply:
            return dict(json.load(reply))

    revision = call("range", {"key": key})["header"]["revision"]
    call("put", {"key": key, "value": b64encode(revision.encode()).decode()})
    call("compaction", {"revision": revision, "physical": True})


async def test_a_list_that_expires_between_two_pages_begins_anew(plain_plane: ControlPlane, plain: Api):
    """The half that was read is of a moment which nobody can complete any more: it counts for nothing."""
    create(plain, "expired", "a", "b", "c")
    async with connected(plain_plane.kubeconfig) as transport:
        meddling = Meddling(transport)

        def expire(query: Mapping[str, str], reply: Response) -> None:
            if len(meddling.lists) > 1:
                return
            delete(plain, "expired", "a")  # the first page shows it
            compact(plain_plane)
            token = json.loads(reply.body)["metadata"]["continue"]
            wait_until(
                lambda: is_gone(plain, {**query, "continue": token}), timeout_s=40, what="expiry of the list"
            )

        meddling.behind_page = expire
        clock = NotingClock()
        settings = ReflectorSettings(page_items=1, backoff_first_s=0.1)
        watched = watched_ledgers(meddling, "expired", settings=settings, watch_list=False, clock=clock)
        async with watched.running(at_once=True):
            # The API server looks for that key every ten seconds or so.
            await until(lambda: len(meddling.lists) > 1, "second page asked for", timeout_s=45.0)
            await until(lambda: watched.store.synced, "first complete list")

    assert [bool(each.get("continue")) for each in meddling.lists] == [False, True, False, True]
    assert watched.news() == [(name, "added") for name in named("expired", "b", "c")]
    assert (watched.reflector.endings[Ending.RESET], watched.reflector.relists) == (1, 1)
    assert "expired between two pages" in watched.reflector.last_ending
    assert len(clock.pauses) == 1


def is_gone(api: Api, query: Mapping[str, str]) -> bool:
    try:
        api.get(LEDGERS, query)
    except ApiError as error:
        return error.status == 410
    return False


async def test_a_restarted_server_without_the_history_is_listed_again(
    plain_plane: ControlPlane, plain: Api, tmp_path: Path
):
    """Its watch cache begins with the restart, so it answers 410; what was missed is told as a difference."""
    create(plain, "restart", "a", "b", "c")
    with piped(plain_plane, tmp_path) as (pipe, path):
        async with connected(path) as transport:
            watched = watched_ledgers(
                transport, "restart", settings=ReflectorSettings(connect_timeout_s=1.0, backoff_max_s=0.5)
            )
            async with watched.running():
                watched.forget()
                pipe.accept_only()
                pipe.cut()
                expected = turn_over(plain, "restart")
                plain_plane.stop_component("kube-apiserver")
                await asyncio.to_thread(plain_plane.start_component, "kube-apiserver")
                assert watched.news() == []
                pipe.resume()
                await until(lambda: watched.told, "difference told")

    reflector = watched.reflector
    assert watched.news() == expected
    assert watched.shown == [named("restart", "a", "c", "d")] * 3
    assert (reflector.endings[Ending.EXPIRED], reflector.relists, reflector.alarms) == (1, 2, 0)
    assert reflector.endings[Ending.RESET] >= 1


# -- a server that is too busy


@contextmanager
def one_seat(api: Api, user: str) -> Iterator[None]:
    """Let priority and fairness serve this user one request at a time, and turn the others away."""
    level, flow = f"{FLOW}/prioritylevelconfigurations", f"{FLOW}/flowschemas"
    head = {"apiVersion": "flowcontrol.apiserver.k8s.io/v1", "metadata": {"name": user}}
    none = {"nominalConcurrencyShares": 0, "lendablePercent": 0, "borrowingLimitPercent": 0}
    # Without any seat of its own it still serves a request while no other is there.
    limited = {"type": "Limited", "limited": {**none, "limitResponse": {"type": "Reject"}}}
    api.create(level, {**head, "kind": "PriorityLevelConfiguration", "spec": limited})
    ledgers = {"verbs": ["*"], "apiGroups": ["remediator.dev"], "resources": ["*"], "clusterScope": True}
    rule = {"subjects": [{"kind": "User", "user": {"name": user}}], "resourceRules": [ledgers]}
    spec = {"matchingPrecedence": 50, "priorityLevelConfiguration": {"name": user}, "rules": [rule]}
    api.create(flow, {**head, "kind": "FlowSchema", "spec": spec})
    try:
        yield
    finally:
        api.remove(f"{flow}/{user}")
        api.remove(f"{level}/{user}")


@asynccontextmanager
async def seat_taken(transport: Transport) -> AsyncIterator[Callable[[], object]]:
    """Keep the one seat busy until what is yielded is called. Enters when somebody was turned away."""

    async def take() -> None:
        # A version from the future: the server waits three seconds for it.
        future = {"resourceVersion": str(10**15)}
        while True:
            await transport.request("GET", LEDGERS, query=future, timeout_s=10.0, lane=Lane.NORMAL)

    taking = asyncio.create_task(take())
    try:
        for _ in range(600):
            reply = await transport.request("GET", LEDGERS, timeout_s=10.0, lane=Lane.NORMAL)
            if reply.status == 429:
                break
            await asyncio.sleep(0.05)
        assert reply.status == 429, "the flow schema is not in force"
        yield taking.cancel
    finally:
        taking.cancel()
        await asyncio.gather(taking, return_exceptions=True)


def a_reader(plane: ControlPlane, api: Api, user: str, folder: Path) -> Path:
    """A kubeconfig of a person who may read everything and is in no privileged group."""
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"}
    binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": user},
        "roleRef": role,
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}],
    }
    api.create(BINDINGS, binding)
    access = Access(
        server=plane.layout.server,
        authority=plane.authority.certificate,
        pair=plane.client_certificate(user),
    )
    path = folder / f"{user}.kubeconfig"
    write(path, user, access)
    return path


@pytest.mark.parametrize("watch_list", [True, False], ids=["watch-list", "pages"])
async def test_a_busy_server_says_when_to_come_back(
    control_plane: ControlPlane, api: Api, group: str, tmp_path: Path, watch_list: bool
):
    """Who asks again at once keeps it busy: its own time counts, where ours would be a tenth of it."""
    user = f"busy-{'stream' if watch_list else 'pages'}"
    path = a_reader(control_plane, api, user, tmp_path)
    create(api, group, "a")
    clock = NotingClock()
    settings = ReflectorSettings(backoff_first_s=0.1, backoff_max_s=0.1)
    with one_seat(api, user):
        async with connected(path) as transport:
            watched = watched_ledgers(transport, group, clock=clock, settings=settings, watch_list=watch_list)
            async with seat_taken(transport) as give_up, watched.running(at_once=True):
                await until(lambda: clock.pauses, "turned away")
                assert not watched.store.synced
                give_up()
                await until(lambda: watched.store.synced, "served")

    assert 1.0 <= clock.pauses[0] <= 60.0
    assert watched.reflector.endings[Ending.RESET] == len(clock.pauses)
    assert watched.news() == [(named(group, "a")[0], "added")]
