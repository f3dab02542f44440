"""``chaos check`` as people run it: logs that are good, broken, cut short, packed, or no logs at all."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from remediator.chaos.profile import SHIPPED, load_profile
from remediator.cli.chaos import SHOWN_MAX, chaos
from remediator.cli.exits import CHECK_FAILED, Stop
from remediator.errors import InputError
from tests.unit.chaos.trace import FENCE, POOL, THEM, Trace


def good() -> Trace:
    trace = Trace()
    trace.node(POOL)
    trace.pod()
    trace.patch(POOL, FENCE)
    trace.evict()
    return trace


def save(trace: Trace, path: Path, *, end: str = "\n") -> Path:
    path.write_text("\n".join(json.dumps(each) for each in trace.lines) + end, "utf-8")
    return path


def run(*words: str | Path) -> Result:
    return CliRunner().invoke(chaos, ["check", "--audit-log", *map(str, words)])


def test_good_log_has_a_line_for_every_rule_and_ends_with_zero(tmp_path: Path):
    done = run(save(good(), tmp_path / "audit.log"))

    assert done.exit_code == 0, done.output
    assert done.output.startswith("remediator: 2 of 5 records are of system:serviceaccount:remediator:")
    assert "S7   HELD" in done.output
    assert "S13  HELD" in done.output


def test_broken_rule_is_shown_with_the_record_that_proves_it(tmp_path: Path):
    trace = good()
    for _ in range(SHOWN_MAX + 2):
        trace.evict(uid="")
    path = save(trace, tmp_path / "audit.log")
    done = run(path)

    assert done.exit_code == CHECK_FAILED
    assert f"S4   BROKEN         {SHOWN_MAX + 2} of {SHOWN_MAX + 3}  Every" in done.output
    assert "S4 line 6, 2026-11-27 12:00:05 UTC, audit ID id-6" in done.output
    assert "S4: 2 more; -o json has 7 of them" in done.output
    found = json.loads(run(path, "-o", "json").output)
    (broken,) = [each for each in found["verdicts"] if each["answer"] == "broken"]
    assert [each["line"] for each in broken["findings"]] == [6, 7, 8, 9, 10, 11, 12]


def test_packed_log_is_read_as_it_is(tmp_path: Path):
    plain = save(good(), tmp_path / "audit.log")
    packed = tmp_path / "audit.log.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))

    assert run(packed).output == run(plain).output


def test_last_line_that_is_being_written_is_left_out(tmp_path: Path):
    """Of a log that the server is still writing to."""
    trace = good()
    trace.evict(uid="")

    assert run(save(trace, tmp_path / "audit.log", end="")).exit_code == 0


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b'{"a": 1}\n', ":1:0: no audit record"),
        (b"hello\n", "no audit record"),
        (b'{"apiVersion": "audit.k8s.io/v1beta1", "stage": "x"', ""),
        (b"\x1f\x8bnot really packed\n", "it can't be read"),
    ],
    ids=["another object", "no JSON", "cut at once", "not packed"],
)
def test_what_is_no_audit_log_is_refused_with_file_line_and_fix(tmp_path: Path, content: bytes, says: str):
    path = tmp_path / "audit.log"
    path.write_bytes(content)
    done = run(path)

    if not says:
        assert isinstance(done.exception, Stop), "nothing to judge is no good news"
        return
    assert isinstance(done.exception, InputError)
    assert str(path) in str(done.exception)
    assert says in str(done.exception)


def test_record_of_another_version_is_refused(tmp_path: Path):
    trace = good()
    trace.lines[2]["apiVersion"] = "audit.k8s.io/v1beta1"
    done = run(save(trace, tmp_path / "audit.log"))

    assert isinstance(done.exception, InputError)
    assert "audit.k8s.io/v1beta1" in str(done.exception)
    assert ":3:" in str(done.exception)


def test_log_of_another_controller_says_whose_it_is(tmp_path: Path):
    """Judging the wrong user finds nothing wrong, and proves nothing."""
    trace = Trace()
    trace.write("patch", "nodes", "n", user=THEM, left={})
    done = run(save(trace, tmp_path / "audit.log"))

    assert isinstance(done.exception, Stop)
    assert "no request of system:serviceaccount:remediator:remediator in 1 records" in str(done.exception)
    assert THEM in str(done.exception)


def test_any_controller_is_judged_by_its_user_alone(tmp_path: Path):
    path = save(good(), tmp_path / "audit.log")
    user = load_profile("remediator").user
    done = run(path, "--profile", "plain", "--user", user)

    assert done.exit_code == 0, done.output
    assert "S4   HELD" in done.output
    assert "the profile lacks own" in done.output
    assert "names no user; add --user NAME" in run(path, "--profile", "plain").output


def test_own_key_is_no_foreign_field(tmp_path: Path):
    trace = Trace()
    trace.node()
    trace.patch(POOL, FENCE)
    path = save(trace, tmp_path / "audit.log")

    assert "changed taint example.com/pool" in run(path).output
    assert run(path, "--own-key", "example.com/pool").exit_code == 0
    assert run(path, "--own-key", "example.com/").exit_code == 0


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_profile_loads_under_its_name(name: str):
    assert load_profile(name).name == name


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("name: [x", "mine.yaml:1"),
        ("name: x\nusre: me\n", "mine.yaml:2:1: usre: unknown key 'usre' (did you mean user?)"),
        ("name: x\nown:\n  keyz: [a/]\n", "mine.yaml:3:3: own.keyz: unknown key 'keyz' (did you mean keys?)"),
        ("user: me\n", "name"),
        ("name: x\nlimits: {writesPerObjectPerMinute: 0}\n", "writesPerObjectPerMinute"),
        ("[]", "mine.yaml:1"),
        ("name: x\nplan: {userAgent: 'run=.+'}\n", "mine.yaml:2:8: plan.userAgent: 0 groups instead of one"),
        ("name: x\nplan: {userAgent: 'run=(.+'}\n", "plan.userAgent: no pattern"),
    ],
)
def test_wrong_profile_is_refused_with_its_line_and_field(tmp_path: Path, text: str, says: str):
    path = tmp_path / "mine.yaml"
    path.write_text(text, "utf-8")

    with pytest.raises(InputError, match=r"mine\.yaml") as caught:
        load_profile(str(path))
    assert says in str(caught.value)


def test_profile_that_is_not_there_names_those_that_are(tmp_path: Path):
    with pytest.raises(InputError, match="plain, reference, remediator"):
        load_profile(str(tmp_path / "nowhere.yaml"))
