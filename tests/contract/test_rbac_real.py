"""The shipped manifests on a real API server: what the account may do, and what every document says.

A control plane of its own: the tests remove the custom resources, which others share.
"""

import asyncio
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from remediator.adapters.files import rbac
from remediator.adapters.kube import bodies
from remediator.adapters.kube.discovery import Rule as Asked
from remediator.adapters.kube.discovery import missing_rules
from remediator.core.actions import Rule
from remediator.model.action import CreateJob
from remediator.testbed.binaries import Binaries
from remediator.testbed.launcher import ControlPlane
from tests.contract.live import connected
from tests.deploy.manifests import DEPLOY, build, load_all, one, parse

pytestmark = [pytest.mark.real_server, pytest.mark.timeout(180)]

ACCOUNT = "system:serviceaccount:remediator:remediator"
NAMESPACES = ("remediator", "default", "remediator-repair", "kube-system")
LEVELS = ("base", "overlays/enforce", "overlays/repair-job")
# RESOURCES, NON-RESOURCE URLS, RESOURCE NAMES, VERBS as `kubectl auth can-i --list` prints them.
ROW = re.compile(r"^(\S*)\s+\[(.*?)\]\s+\[(.*?)\]\s+\[(.*?)\]$")

Grants = dict[tuple[str, str], frozenset[str]]


@pytest.fixture(scope="module")
def plane(
    control_plane_binaries: Binaries, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ControlPlane]:
    with ControlPlane(tmp_path_factory.mktemp("rbac"), control_plane_binaries) as started:
        started.kubectl("apply", "--server-side", "-f", str(DEPLOY / "crds"))
        started.kubectl("wait", "--for=condition=Established", "--timeout=60s", "crd", "--all")
        yield started


@pytest.fixture(scope="module", params=LEVELS, ids=["audit", "enforce", "repair-job"])
def level(request: pytest.FixtureRequest, plane: ControlPlane) -> str:
    """Each overlay in turn, and nothing that a higher one has left."""
    chosen = str(request.param)
    for higher in LEVELS[LEVELS.index(chosen) + 1 :]:
        plane.kubectl("delete", "--ignore-not-found", "-f", str(DEPLOY / higher / "rbac.yaml"))
    plane.kubectl("apply", "-k", str(DEPLOY / chosen))
    return chosen


def expected(level: str) -> tuple[Rule, ...]:
    return rbac.controller_rules(enforce=level != "base", repair=level == "overlays/repair-job")


def listed(plane: ControlPlane, account: str, namespace: str) -> Grants:
    """What the server says that an account may do in a namespace, by group and resource."""
    done = plane.kubectl("auth", "can-i", "--list", "--as", account, "-n", namespace)
    found: Grants = {}
    for line in done.stdout.splitlines()[1:]:
        row = ROW.match(line.strip())
        if row is None:
            continue
        name, urls, names, verbs = row.groups()
        if urls:
            continue
        assert not names, line
        # A resource with a group is RESOURCE.GROUP, or RESOURCE.GROUP/SUBRESOURCE.
        whole, _, below = name.partition("/")
        resource, _, group = whole.partition(".")
        key = (group, f"{resource}/{below}" if below else resource)
        found[key] = found.get(key, frozenset()) | frozenset(verbs.split())
    return found


@pytest.fixture(scope="module")
def everybody(plane: ControlPlane) -> Grants:
    """What any account may do: ask the server who it is and what it may."""
    return listed(plane, "system:serviceaccount:default:nobody", "default")


@pytest.mark.parametrize("namespace", NAMESPACES)
def test_server_grants_exactly_the_table(plane: ControlPlane, level: str, everybody: Grants, namespace: str):
    """The account's rights as the server counts them: no more, no less, in any namespace."""
    wanted: Grants = dict(everybody)
    for rule in expected(level):
        if rule.namespace in ("", namespace):
            key = (rule.group, rule.resource)
            wanted[key] = wanted.get(key, frozenset()) | frozenset(rule.verbs)

    assert listed(plane, ACCOUNT, namespace) == wanted
    assert set(everybody) == {
        ("authentication.k8s.io", "selfsubjectreviews"),
        ("authorization.k8s.io", "selfsubjectaccessreviews"),
        ("authorization.k8s.io", "selfsubjectrulesreviews"),
    }


ALWAYS_NO = (
    ("get", "secrets", ""),
    ("get", "configmaps", ""),
    ("list", "leases.coordination.k8s.io", "remediator"),
    ("watch", "leases.coordination.k8s.io", "remediator"),
    ("watch", "leases.coordination.k8s.io", "kube-node-lease"),
    ("get", "leases.coordination.k8s.io", "kube-system"),
    ("update", "leases.coordination.k8s.io", "kube-node-lease"),
    ("delete", "pods", ""),
    ("patch", "pods", ""),
    ("create", "pods", ""),
    ("create", "pods/exec", ""),
    ("watch", "pods", ""),
    ("get", "nodes/proxy", ""),
    ("patch", "nodes/status", ""),
    ("update", "nodes", ""),
    ("delete", "nodes", ""),
    ("create", "nodes", ""),
    ("create", "jobs.batch", ""),
    ("create", "jobs.batch", "remediator"),
    ("delete", "jobs.batch", "remediator-repair"),
    ("patch", "podtemplates", "remediator-repair"),
    ("create", "pods", "remediator-repair"),
    ("create", "serviceaccounts/token", "remediator"),
    ("impersonate", "users", ""),
    ("escalate", "clusterroles.rbac.authorization.k8s.io", ""),
    ("bind", "clusterroles.rbac.authorization.k8s.io", ""),
    ("create", "clusterrolebindings.rbac.authorization.k8s.io", ""),
    ("patch", "remediationpolicies.remediator.dev", ""),
    ("patch", "playbooks.remediator.dev", ""),
    ("patch", "resourcepools.remediator.dev", ""),
    ("patch", "remediations.remediator.dev", ""),
    ("deletecollection", "remediations.remediator.dev", ""),
    ("patch", "deployments.apps", "remediator"),
    ("delete", "resourcequotas", "remediator"),
    ("patch", "resourcequotas", "remediator-repair"),
    ("patch", "networkpolicies.networking.k8s.io", "remediator"),
    ("patch", "namespaces", ""),
    ("delete", "managednodes.remediator.dev", ""),
    ("patch", "customresourcedefinitions.apiextensions.k8s.io", ""),
)
NO_IN_AUDIT = (("patch", "nodes", ""), ("create", "pods/eviction", ""))


def allowed(plane: ControlPlane, verb: str, what: str, namespace: str) -> bool:
    resource, _, below = what.partition("/")
    words = ["auth", "can-i", verb, resource, "--as", ACCOUNT]
    words += [f"--subresource={below}"] if below else []
    words += ["-n", namespace] if namespace else ["-A"]
    answer = plane.kubectl(*words, check=False).stdout.strip()
    assert answer in ("yes", "no"), answer
    return answer == "yes"


def test_server_says_no_to_what_is_forbidden(plane: ControlPlane, level: str):
    """Named one by one, since a list of what is granted reads over what should not be."""
    forbidden = ALWAYS_NO + (NO_IN_AUDIT if level == "base" else ())

    assert [each for each in forbidden if allowed(plane, *each)] == []
    assert [allowed(plane, *each) for each in NO_IN_AUDIT] == [level != "base"] * 2


def test_start_up_check_finds_nothing_missing(plane: ControlPlane, level: str, tmp_path: Path):
    """The program's own question, asked with the account's own token as its pod would."""
    mine = _asked(expected(level))
    all_rules = _asked(rbac.controller_rules(enforce=True, repair=True))
    admin = plane.admin()
    target = tmp_path / "account.kubeconfig"
    admin.service_account_kubeconfig("remediator", "remediator", target)
    admin.close()

    async def ask() -> tuple[Asked, ...]:
        async with connected(target) as transport:
            return await missing_rules(transport, all_rules)

    assert asyncio.run(ask()) == tuple(sorted(set(all_rules) - set(mine)))


def _asked(rules: tuple[Rule, ...]) -> tuple[Asked, ...]:
    return tuple(
        Asked(rule.group, rule.resource, verb, rule.namespace) for rule in rules for verb in rule.verbs
    )


def test_pod_security_takes_the_controllers_pod(plane: ControlPlane, level: str):
    """Admission looks at pods, not at Deployments: a refused one shows as nothing at all."""
    template = one(load_all("base"), "Deployment", "remediator")["spec"]["template"]
    meta = {"name": "controller", "namespace": "remediator", "labels": template["metadata"]["labels"]}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": template["spec"]}

    done = plane.kubectl("create", "--dry-run=server", "-f", "-", stdin=json.dumps(pod))

    assert "Warning" not in done.stderr


@pytest.mark.parametrize("level", ["overlays/repair-job"], indirect=True)
def test_pod_security_refuses_the_reboot_everywhere_else(plane: ControlPlane, level: str):
    """The privileged namespace must be the only place for it."""
    job = repair_job(plane)

    for namespace, code in (("remediator-repair", 0), ("remediator", 1)):
        template = job["spec"]["template"]
        meta = {**template["metadata"], "name": "reboot", "namespace": namespace}
        spec = {**template["spec"], "nodeName": ""}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec}
        done = plane.kubectl("create", "--dry-run=server", "-f", "-", stdin=json.dumps(pod), check=False)
        assert done.returncode == code, done.stderr
    assert 'violates PodSecurity "restricted' in done.stderr


@pytest.mark.parametrize("level", ["overlays/repair-job"], indirect=True)
def test_account_sends_the_repair_job(plane: ControlPlane, level: str):
    """What the writer builds from the shipped template is accepted, under the account's own rights."""
    term = ("patch", "rpol", "cluster", "--subresource=status", "--type=merge", "-p", '{"status":{"term":1}}')
    plane.kubectl(*term)  # before a leader has written one, nobody may act
    words = ("create", "--as", ACCOUNT, "--dry-run=server", "-o", "json", "-f", "-")

    made = json.loads(plane.kubectl(*words, stdin=json.dumps(repair_job(plane))).stdout)

    (container,) = made["spec"]["template"]["spec"]["containers"]
    assert {"name": "EXPECTED_BOOT_ID", "value": "boot-1"} in container["env"]
    assert made["spec"]["template"]["spec"]["hostPID"] is True


def repair_job(plane: ControlPlane) -> Any:
    words = ("get", "podtemplate", "reboot", "-n", "remediator-repair", "-o", "json", "--as", ACCOUNT)
    action = CreateJob(
        namespace="remediator-repair",
        name="gpu-a-01-1-reboot-1",
        template="reboot",
        node="gpu-a-01",
        labels={"remediator.dev/repair": "gpu-a-01-1"},
        env={"EXPECTED_BOOT_ID": "boot-1"},
        deadline_s=60,
    )
    return msgspec.json.decode(bodies.job(action, plane.kubectl(*words).stdout.encode(), term=1))


def test_operator_can_pause_and_hold_but_not_act(plane: ControlPlane, level: str):
    """The role that on-call gets at three in the morning."""
    can = ["auth", "can-i", "--as=alice", "--as-group=gpu-oncall"]
    plane.kubectl(
        "create",
        "clusterrolebinding",
        f"oncall-{level.rpartition('/')[2]}",
        "--clusterrole=remediator-operator",
        "--group=gpu-oncall",
    )
    wanted = {
        ("patch", "rpol"): "yes",
        ("patch", "rpool"): "yes",
        ("patch", "rmd"): "yes",
        ("patch", "nodes"): "yes",
        ("patch", "rpb"): "no",
        ("delete", "rpol"): "no",
        ("delete", "nodes"): "no",
        ("get", "secrets"): "no",
    }

    answers = {key: plane.kubectl(*can, *key, check=False).stdout.strip() for key in wanted}

    assert answers == wanted


def test_viewer_sees_our_objects_and_changes_none(plane: ControlPlane, level: str):
    """Whoever has the cluster's own role view gets this without being asked."""
    binding = f"viewers-{level.rpartition('/')[2]}"
    plane.kubectl("create", "clusterrolebinding", binding, "--clusterrole=view", "--group=gpu-users")
    can = ["auth", "can-i", "--as=bob", "--as-group=gpu-users", "-A"]
    kinds = ("mnode", "rpb", "rpol", "rmd", "rpool")

    seen = [plane.kubectl(*can, "get", kind, check=False).stdout.strip() for kind in kinds]
    changed = [
        plane.kubectl(*can, verb, kind, check=False).stdout.strip()
        for verb in ("create", "patch", "delete")
        for kind in kinds
    ]

    assert set(seen) == {"yes"}
    assert set(changed) == {"no"}


def test_test_bed_overlay_is_accepted(plane: ControlPlane, control_plane_binaries: Binaries):
    """Strict validation by the server itself; nothing is kept."""
    text = build(control_plane_binaries, "overlays/testbed")

    done = plane.kubectl("apply", "--dry-run=server", "--validate=strict", "-f", "-", stdin=text)

    assert len(done.stdout.splitlines()) == len(parse(text))
