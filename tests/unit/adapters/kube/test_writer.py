"""What goes over the wire for nodes, pods and Jobs, and what each answer is taken to mean."""

from __future__ import annotations

import msgspec
import pytest

from remediator import __version__
from remediator.adapters.kube.errors import NotSentError
from remediator.adapters.kube.writer import KubeWriter
from remediator.errors import ContractError, PermanentError, TransientError
from remediator.model.action import Attribution, CreateJob, EvictPod, PatchNode
from remediator.ports import Lane, Outcome, Refusal, Response
from tests.unit.adapters.kube.manual_clock import ManualClock
from tests.unit.adapters.kube.scripted import ScriptedTransport, json_reply

pytestmark = pytest.mark.asyncio
WHO = Attribution(term=7, run="n1-3", step="fence", attempt=2)
PATCH = PatchNode(name="n1", uid="u", resource_version="41", patch={"spec": {"unschedulable": True}})
EVICT = EvictPod(namespace="train", name="p", uid="pod-uid")
JOB = CreateJob(
    namespace="repair",
    name="n1-3-reboot-1",
    template="reboot",
    node="n1",
    labels={"remediator.dev/repair": "n1-3"},
    env={"EXPECTED_BOOT_ID": "b", "A": "ours"},
    deadline_s=1800,
)


def a_server(answer: Response | Exception = Response(200, {}, b"{}")) -> ScriptedTransport:  # noqa: B008
    server = ScriptedTransport(ManualClock())
    server.answer = lambda asked: answer
    return server


def a_writer(server: ScriptedTransport, reason: str | None = None) -> KubeWriter:
    return KubeWriter(server, may_write=lambda: reason)


def a_status(code: int, reason: str | None, message: str = "no", causes: tuple[str, ...] = ()) -> Response:
    details = {"name": "x", "causes": [{"reason": each} for each in causes]}
    return json_reply(code, {"kind": "Status", "reason": reason, "message": message, "details": details})


async def test_node_patch_carries_precondition_and_term():
    """A stale decision must be refused by the server, and so must a deposed leader's."""
    server = a_server(Response(200, {}, b'{"metadata":{"resourceVersion":"42"}}'))
    taints = msgspec.Raw(b'[{"key":"a","effect":"NoExecute","timeAdded":"2026-01-01T00:00:00Z","x":1.50}]')
    patch = {"metadata": {"annotations": {"remediator.dev/run": "n1-3/fence"}}, "spec": {"taints": taints}}

    written = await a_writer(server).apply(msgspec.structs.replace(PATCH, patch=patch), WHO)

    assert (written.outcome, written.body) == (Outcome.APPLIED, b'{"metadata":{"resourceVersion":"42"}}')
    (asked,) = server.asked
    assert (asked.method, asked.path, asked.lane) == ("PATCH", "/api/v1/nodes/n1", Lane.URGENT)
    assert asked.headers["Content-Type"] == "application/merge-patch+json"
    assert asked.timeout_s == 10.0
    assert asked.json["metadata"] == {
        "resourceVersion": "41",
        "annotations": {"remediator.dev/run": "n1-3/fence", "remediator.dev/term": "7"},
    }
    assert bytes(taints) in asked.body


async def test_node_patch_can_take_annotations_away():
    """Returning a node removes our marks; null is how a merge patch says so."""
    server = a_server()
    patch = {"metadata": {"annotations": {"remediator.dev/prior": None}, "labels": {"pool": None}}}

    await a_writer(server).apply(msgspec.structs.replace(PATCH, patch=patch), WHO)

    metadata = server.asked[0].json["metadata"]
    assert metadata["annotations"] == {"remediator.dev/prior": None, "remediator.dev/term": "7"}
    assert metadata["labels"] == {"pool": None}


@pytest.mark.parametrize(
    "action",
    [
        msgspec.structs.replace(PATCH, resource_version=""),
        msgspec.structs.replace(PATCH, patch={"metadata": {"resourceVersion": "1"}}),
        msgspec.structs.replace(PATCH, patch={"metadata": {"uid": "u"}}),
        msgspec.structs.replace(PATCH, patch={"metadata": None}),
        msgspec.structs.replace(PATCH, patch={"metadata": {"annotations": None}}),
    ],
)
async def test_node_patch_without_a_safe_precondition_is_our_own_bug(action):
    """An unconditional write to a node is the one thing that must never leave."""
    server = a_server()

    with pytest.raises(ContractError):
        await a_writer(server).apply(action, WHO)

    assert server.asked == []


async def test_eviction_hits_exactly_one_pod():
    """A pod that was re-created under its name must not die for its predecessor."""
    server = a_server(Response(201, {}, b"{}"))

    written = await a_writer(server).apply(EVICT, WHO)

    assert written.outcome is Outcome.APPLIED
    (asked,) = server.asked
    assert (asked.method, asked.path) == ("POST", "/api/v1/namespaces/train/pods/p/eviction")
    assert asked.lane is Lane.NORMAL
    assert (asked.json["apiVersion"], asked.json["kind"]) == ("policy/v1", "Eviction")
    assert asked.json["metadata"]["annotations"] == {"remediator.dev/term": "7"}
    assert asked.json["deleteOptions"] == {"preconditions": {"uid": "pod-uid"}}


@pytest.mark.parametrize(
    ("answer", "outcome", "refusal"),
    [
        (a_status(409, "Conflict"), Outcome.REFUSED, Refusal.CONFLICT),
        (a_status(404, "NotFound"), Outcome.REFUSED, Refusal.GONE),
        (a_status(429, "TooManyRequests", causes=("DisruptionBudget",)), Outcome.REFUSED, Refusal.BUDGET),
        (a_status(429, "TooManyRequests"), Outcome.REFUSED, Refusal.OVERLOAD),
        (
            a_status(500, None, "This pod has more than one PodDisruptionBudget, which is not supported"),
            Outcome.REFUSED,
            Refusal.BUDGET,
        ),
        (a_status(500, "InternalError"), Outcome.UNKNOWN, Refusal.NONE),
        (a_status(503, "ServiceUnavailable"), Outcome.UNKNOWN, Refusal.NONE),
        (TransientError("reset"), Outcome.UNKNOWN, Refusal.NONE),
        (NotSentError("no connection"), Outcome.REFUSED, Refusal.OVERLOAD),
    ],
)
async def test_each_answer_says_what_is_known(answer, outcome, refusal):
    """A lost reply is unknown, a refusal is a value, and neither is ever sent again."""
    server = a_server(answer)

    written = await a_writer(server).apply(EVICT, WHO)

    assert (written.outcome, written.refusal) == (outcome, refusal)
    assert written.body == b""
    assert len(server.asked) == 1


@pytest.mark.parametrize("status", [400, 403, 422])
async def test_what_a_person_must_change_is_an_error(status):
    """A missing permission does not go away by looking again."""
    with pytest.raises(PermanentError):
        await a_writer(a_server(a_status(status, "Invalid"))).apply(EVICT, WHO)


async def test_a_writer_without_the_lease_sends_nothing():
    """From the moment the lease may belong to somebody else, silence is the only safe write."""
    server = a_server()
    writer = a_writer(server, "lease not renewed for 10 s")

    for action in (PATCH, EVICT):
        written = await writer.apply(action, WHO)
        assert (written.outcome, written.refusal) == (Outcome.REFUSED, Refusal.FENCED)
        assert written.message == "lease not renewed for 10 s"

    assert server.asked == []


async def test_the_lease_is_asked_again_after_the_template_was_read():
    """The read may take seconds, and the lease may end in them."""
    server = ScriptedTransport(ManualClock())
    server.answer = lambda asked: json_reply(200, TEMPLATE)
    writer = KubeWriter(server, may_write=lambda: "lost" if server.asked else None)

    written = await writer.apply(JOB, WHO)

    assert written.refusal is Refusal.FENCED
    assert [each.method for each in server.asked] == ["GET"]


async def test_requests_name_run_step_and_attempt():
    """The server's audit log alone must prove which rule each write followed."""
    server = a_server()
    writer = a_writer(server)
    for _ in range(2):
        await writer.apply(EVICT, WHO)
    await writer.apply(EVICT, Attribution(term=7))

    agents = [each.headers["User-Agent"] for each in server.asked]
    assert agents[0] == f"remediator/{__version__} (term=7; run=n1-3; step=fence; attempt=2)"
    assert agents[2] == f"remediator/{__version__} (term=7)"


@pytest.mark.parametrize("run", ["a\r\nX: y", "a;b", "a)", "ä", "a b"])
async def test_attribution_cannot_forge_a_header(run):
    """The names end up in a header line that auditors parse."""
    with pytest.raises(ContractError):
        await a_writer(a_server()).apply(EVICT, Attribution(term=1, run=run))


TEMPLATE = {
    "kind": "PodTemplate",
    "metadata": {"name": "reboot", "resourceVersion": "3"},
    "template": {
        "metadata": {"labels": {"team": "hw"}, "annotations": {"note": "x"}},
        "spec": {
            "restartPolicy": "Always",
            "hostPID": True,
            "containers": [
                {"name": "c", "image": "i", "env": [{"name": "A", "value": "theirs"}, {"name": "B"}]}
            ],
            "initContainers": [{"name": "i", "image": "i"}],
            "future": {"kept": 1.5},
        },
    },
}


async def test_repair_job_runs_once_on_its_node_and_nowhere_else():
    """A reboot that is tried again by Kubernetes, or on another machine, is a disaster."""
    server = ScriptedTransport(ManualClock())
    server.answer = lambda asked: json_reply(200 if asked.method == "GET" else 201, TEMPLATE)

    written = await a_writer(server).apply(JOB, WHO)

    assert written.outcome is Outcome.APPLIED
    read, post = server.asked
    assert read.path == "/api/v1/namespaces/repair/podtemplates/reboot"
    assert (post.method, post.path) == ("POST", "/apis/batch/v1/namespaces/repair/jobs")
    assert post.json["metadata"] == {
        "name": "n1-3-reboot-1",
        "namespace": "repair",
        "labels": {"remediator.dev/repair": "n1-3"},
        "annotations": {"remediator.dev/term": "7"},
    }
    spec = post.json["spec"]
    assert (spec["backoffLimit"], spec["activeDeadlineSeconds"]) == (0, 1800)
    assert spec["ttlSecondsAfterFinished"] == 86_400
    pod = spec["template"]["spec"]
    assert (pod["restartPolicy"], pod["nodeName"], pod["hostPID"]) == ("Never", "n1", True)
    assert pod["tolerations"] == [{"operator": "Exists"}]
    assert pod["future"] == {"kept": 1.5}
    assert spec["template"]["metadata"] == {
        "labels": {"team": "hw", "remediator.dev/repair": "n1-3"},
        "annotations": {"note": "x"},
    }
    ours = [{"name": "A", "value": "ours"}, {"name": "EXPECTED_BOOT_ID", "value": "b"}]
    assert pod["containers"][0]["env"] == [{"name": "B"}, *ours]
    assert pod["initContainers"][0]["env"] == ours


async def test_repair_job_that_exists_is_refused_by_its_name():
    """Sending the same attempt twice must create one Job."""
    server = ScriptedTransport(ManualClock())
    server.answer = lambda asked: (
        json_reply(200, TEMPLATE) if asked.method == "GET" else a_status(409, "AlreadyExists")
    )

    written = await a_writer(server).apply(JOB, WHO)

    assert (written.outcome, written.refusal) == (Outcome.REFUSED, Refusal.EXISTS)


async def test_repair_job_whose_template_was_not_read_changed_nothing():
    """Only a read was lost: observing first would wait for something that cannot be there."""
    server = a_server(a_status(503, "ServiceUnavailable"))

    written = await a_writer(server).apply(JOB, WHO)

    assert (written.outcome, written.refusal) == (Outcome.REFUSED, Refusal.OVERLOAD)
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    "answer",
    [
        a_status(404, "NotFound"),
        json_reply(200, {"metadata": {}}),
        json_reply(200, {"template": {"spec": {"containers": []}}}),
        json_reply(200, {"template": {"spec": {"containers": ["x"]}}}),
        Response(200, {}, b"not json"),
    ],
    ids=["missing", "no-template", "no-container", "odd", "garbled"],
)
async def test_repair_job_without_a_usable_template_is_a_persons_to_mend(answer):
    """The playbook names a template; looking again does not create it."""
    server = a_server(answer)

    with pytest.raises(PermanentError, match=r"reboot"):
        await a_writer(server).apply(JOB, WHO)

    assert len(server.asked) == 1
