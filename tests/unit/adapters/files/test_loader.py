"""Files are read strictly, and every problem is named with its place and what to write instead."""

import json
from pathlib import Path

import pytest

from remediator.adapters.files.loader import load_dump, load_objects, load_text
from remediator.errors import InputError
from remediator.model.playbook import Playbook
from remediator.model.pool import ResourcePool
from tests.unit.adapters.files.examples import BAD, OBJECTS, Bad, a_playbook, a_pool, a_test

FULL_OF_ERRORS = """\
apiVersion: remediator.dev/v1alpha1
kind: Playbook
metadata:
  name: GPU_x
  anotations: {a: b}
spec:
  summary: ""
  mode: enforce
  severity: Hard
  priority: 2000
  nodes: {selector: {matchLabels: {nvidia.com/gpu.present: true}}}
  match:
    anyOf:
      - id: xid
        xid: {codes: [79, "80", 1000]}
        for: 5 minutes
      - id: cond
        nodeCondition: {type: KernelDeadlock, status: True}
        gpuMetric: {field: DCGM_FI, op: "==", value: "1"}
  steps:
    - id: fence
      quarantin: {value: x}
    - id: drain
      drain:
    - id: drain
      id: again
      verify: {quietFor: yes}
"""

GOLDEN = """\
a.yaml:4:9: metadata.name: 'GPU_x' has the wrong form (lower-case letters, digits, '-' and '.')
a.yaml:5:3: metadata.anotations: unknown key 'anotations' (did you mean annotations?)
a.yaml:7:3: spec: faultClass is missing (add faultClass)
a.yaml:7:12: spec.summary: '' is empty
a.yaml:8:9: spec.mode: 'enforce' must be one of Audit, Disabled, Enforce (did you mean Enforce?)
a.yaml:10:13: spec.priority: 2000 is out of bounds (at least 0 and at most 1000)
a.yaml:11:60: spec.nodes.selector.matchLabels["nvidia.com/gpu.present"]: expected text, found true (write "true" in quotes)
a.yaml:15:27: spec.match.anyOf[0].xid.codes[1]: expected a whole number, found text '80' (remove the quotes)
a.yaml:15:33: spec.match.anyOf[0].xid.codes[2]: 1000 is out of bounds (at least 1 and at most 999)
a.yaml:16:14: spec.match.anyOf[0].for: '5 minutes' has the wrong form (write a duration such as 90s, 15m, 2h30m or 14d)
a.yaml:17:9: spec.match.anyOf[1]: found nodeCondition and gpuMetric (set exactly one of xid, gpuMetric, nodeCondition)
a.yaml:18:55: spec.match.anyOf[1].nodeCondition.status: expected text, found true (write "True" in quotes)
a.yaml:19:54: spec.match.anyOf[1].gpuMetric.value: expected a number, found text '1' (remove the quotes)
a.yaml:21:7: spec.steps[0]: found none (set exactly one of collect, quarantine, swap, drain, detach, repair, verify, return, report)
a.yaml:22:7: spec.steps[0].quarantin: unknown key 'quarantin' (did you mean quarantine?)
a.yaml:25:5: spec.steps[1].drain: expected a mapping, found nothing (write {} for an empty one)
a.yaml:26:7: spec.steps[2].id: key 'id' stands twice, first in line 25 (keep one of them)
a.yaml:27:26: spec.steps[2].verify.quietFor: kubectl reads yes as true or false (write "yes" in quotes, or true or false)
"""  # noqa: E501  # one problem is one line, as a person sees it

SHORT = """\
apiVersion: remediator.dev/v1alpha1
kind: ResourcePool
metadata: {name: NAME}
spec:
  role: Buffer
  membership: {key: example.com/pool, value: NAME}
"""


def problems_of(text: str) -> list[str]:
    with pytest.raises(InputError) as caught:
        load_text(text, "a.yaml")
    return [str(problem) for problem in caught.value.problems]


def test_loader_names_every_problem_at_once():
    """Fixing a file one error per run is why people stop linting."""
    assert "\n".join(problems_of(FULL_OF_ERRORS)) + "\n" == GOLDEN


@pytest.mark.parametrize("make", OBJECTS, ids=lambda make: make.__name__)
def test_loader_reads_every_kind(make):
    """A kind that only the cluster can hold could not be kept in git."""
    (loaded,) = load_text(json.dumps(make()), "a.json")

    assert loaded.kind == make()["kind"]
    assert loaded.name == make()["metadata"]["name"]


def test_loader_reads_playbook_tests():
    """Test files are no objects of a cluster, yet the same reader must check them."""
    (loaded,) = load_text(json.dumps(a_test()), "a.json")

    assert loaded.kind == "PlaybookTest"


@pytest.mark.parametrize("bad", [bad for bad in BAD if bad.rule == "form"], ids=lambda bad: bad.name)
def test_loader_refuses_what_the_server_refuses(bad: Bad):
    """What lint lets through must not fail at the cluster."""
    with pytest.raises(InputError):
        load_text(json.dumps(bad.spoiled()), "a.json")


def test_loader_takes_documents_and_lists_apart():
    """People keep several objects in a file, and kubectl writes lists."""
    items = {"apiVersion": "v1", "kind": "List", "items": [a_playbook(), a_pool()]}
    text = "---\n" + SHORT.replace("NAME", "one") + "---\n# nothing\n---\n" + json.dumps(items)

    assert [each.name for each in load_text(text, "a.yaml")] == ["one", "example", "train"]


def test_loader_points_into_lists():
    """Without the item's position a problem in a list of 200 objects cannot be found."""
    spoiled = a_pool()
    spoiled["spec"]["rol"] = "Workload"
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": [a_playbook(), spoiled]})

    (problem,) = problems_of(text)

    assert "items[1].spec.rol: unknown key 'rol' (did you mean role?)" in problem


def test_loader_ignores_status_and_server_fields_in_files():
    """`kubectl get -o yaml` of a good object must lint clean."""
    text = SHORT.replace("{name: NAME}", "{name: a, creationTimestamp: null, uid: x}").replace("NAME", "a")

    (loaded,) = load_text(text + "status: {nodes: 4}\n", "a.yaml")

    assert isinstance(loaded.value, ResourcePool)
    assert not loaded.value.status


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [1, 2\n", "a.yaml:2:1: not YAML:"),
        ("a: 1\n\tb: 2\n", "a.yaml:2:1: not YAML:"),
        ("a: \x00\n", "a.yaml: not YAML:"),
        ("- 1\n", "a.yaml:1:1: expected an object with apiVersion and kind"),
        ("metadata: {}\n", "a.yaml:1:1: kind: kind is missing"),
        ("kind: Playbok\n", "a.yaml:1:1: kind: unknown kind 'Playbok'"),
        ("kind: Playbook\napiVersion: v1\n", "apiVersion: 'v1' must be remediator.dev/v1alpha1"),
        ("kind: Playbook\n<<: {a: 1}\n", "a.yaml:2:1: a key must be plain text"),
        ("kind: Playbook\nspec: {priority: 010}\n", "spec.priority: number 010 is not read alike by all"),
        ("kind: Playbook\nspec: {priority: .inf}\n", "spec.priority: number .inf is not finite"),
        ("kind: Playbook\nspec: !!python/name:os.system {}\n", "python/name:os.system' is not allowed"),
    ],
)  # fmt: skip
def test_loader_says_what_is_wrong_with_the_yaml(text, said):
    """The YAML itself is the first thing that goes wrong, and no reader may guess."""
    assert any(said in problem for problem in problems_of(text)), problems_of(text)


def test_loader_bounds_what_aliases_can_multiply():
    """A few lines of aliases must not become gigabytes."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]

    assert any("more than 50,000 values" in problem for problem in problems_of("\n".join(lines)))


def test_loader_reads_directories_in_order(tmp_path: Path):
    """The order of files decides the order of problems, and golden outputs hang on it."""
    for name in ("b", "a"):
        (tmp_path / f"{name}.yaml").write_text(SHORT.replace("NAME", name))
    (tmp_path / "kustomization.yaml").write_text("resources: [a.yaml]\n")
    (tmp_path / "notes.txt").write_text("nothing\n")

    assert [each.name for each in load_objects([tmp_path])] == ["a", "b"]


def test_loader_names_both_places_of_a_double_object(tmp_path: Path):
    """`kubectl apply` would silently let the last one win."""
    for name in ("a", "b"):
        (tmp_path / f"{name}.yaml").write_text(SHORT.replace("NAME", "same"))

    with pytest.raises(InputError) as caught:
        load_objects([tmp_path])

    assert f"'same' stands twice, first in {tmp_path}/a.yaml:1" in str(caught.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"#" * 1_048_577, "at most 1,048,576"),
        (b"kind: \xff\n", "not UTF-8 at byte 6"),
        (b"# only a comment\n", "holds no object"),
        (None, "cannot be read"),
    ],
    ids=["large", "bytes", "empty", "missing"],
)
def test_loader_refuses_files_it_cannot_use(tmp_path: Path, content, said):
    """A file that is silently skipped looks like one that is in force."""
    path = tmp_path / "a.yaml"
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(InputError, match=said):
        load_objects([path])


def test_dump_sorts_kinds_and_keeps_status(tmp_path: Path):
    """A snapshot needs what the controller wrote, and the nodes as they were."""
    pool = {**a_pool(), "status": {"nodes": 62, "later": "unknown field"}}
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}}
    path = tmp_path / "dump.json"
    path.write_text(json.dumps({"kind": "List", "items": [pool, a_playbook(), node]}))

    dump = load_dump(path)

    assert [type(each) for each in dump.objects] == [ResourcePool, Playbook]
    assert isinstance(dump.objects[0], ResourcePool)
    assert dump.objects[0].status
    assert dump.objects[0].status.nodes == 62
    assert [json.loads(each) for each in dump.others["Node"]] == [node]


def test_dump_reads_typed_lists_whose_items_name_no_kind(tmp_path: Path):
    """The API server leaves kind and apiVersion out of the items of a typed list."""
    item = a_pool()
    del item["kind"], item["apiVersion"]
    path = tmp_path / "dump.json"
    path.write_text(json.dumps({"kind": "ResourcePoolList", "items": [item]}))

    assert [each.metadata.name for each in load_dump(path).objects] == ["train"]


def test_dump_names_the_item_that_does_not_decode(tmp_path: Path):
    """One bad object among thousands must be found."""
    broken = a_pool()
    broken["spec"]["role"] = "Worker"
    path = tmp_path / "dump.json"
    path.write_text(json.dumps({"kind": "List", "items": [a_playbook(), broken]}))

    with pytest.raises(InputError, match=r"items\[1\]"):
        load_dump(path)
