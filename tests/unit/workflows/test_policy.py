"""`verify`'s policy, each demand met and not met; and what its formats say."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bundler.artifacts.verify import Verdict, verify
from bundler.cli.commands import cli
from bundler.cli.run import run
from bundler.cli.verify_formats import formatted
from bundler.errors import Findings, VerificationFailed
from bundler.state.directory import DirectoryArtifact
from bundler.state.manifest import Build, DirectoryRefresh, KeyRefresh, RunRecord, canonical, parse
from bundler.workflows.policy import RULES, Policy, Subject, judge, subject_of
from bundler.workflows.verify import VerifyReport
from tests.support.bundles import make_bundle
from tests.support.sarif import check_sarif

_NOW = 1_800_000_000.0  # 2027-01-15T08:00:00Z
_COMMIT = "0123456789abcdef0123456789abcdef01234567"
_PLACE = "shop/defs"
_GOOD = RunRecord(
    build=Build(commit=_COMMIT, dirty=False, guarded=True),
    refresh=(
        DirectoryRefresh(
            ".",
            (
                KeyRefresh("Shop", confirmed="2027-01-15T07:00:00Z"),
                KeyRefresh("dbt", confirmed="2027-01-15T07:30:00Z"),
            ),
        ),
    ),
    environment="prod",
)
_STATES = {"Shop": {"state": b'[{"id": 1}, {"id": 2}]'}, "dbt": {"state": b"", "a.sql": b"x"}}


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    make_bundle(tmp_path / ".local_defs_state", _STATES)
    return tmp_path / ".local_defs_state"


def _subject(directory: Path, policy: Policy, record: RunRecord | None = _GOOD) -> Subject:
    if record is not None:
        (directory / "@run.json").write_bytes(canonical(_bound(record, directory)))
    with DirectoryArtifact(directory) as artifact:
        verdict = verify(artifact)
        assert verdict.all_problems == ()
        return subject_of(policy, artifact, verdict, _NOW)


def _bound(record: RunRecord, directory: Path) -> RunRecord:
    manifest = parse((directory / "@manifest.json").read_bytes())
    return msgspec.structs.replace(record, refresh=tuple(it.of(manifest) for it in record.refresh))


def _breaches(
    directory: Path, policy: Policy, record: RunRecord | None = _GOOD
) -> list[tuple[str, str]]:
    subject = _subject(directory, policy, record)
    return [(breach.rule, breach.what) for breach in judge(policy, subject)]


_EVERYTHING = Policy(
    max_age=7200.0,
    require=("Shop", "dbt"),
    commit=_COMMIT[:9],
    clean=True,
    guarded=True,
    no_stale=True,
    environment="prod",
    min_entries={"Shop": 2, "*": 1},
)


def test_what_meets_the_policy_passes(directory: Path) -> None:
    assert _breaches(directory, _EVERYTHING) == []


def _record(key: KeyRefresh | None = None, **build: object) -> RunRecord:
    first = key or _GOOD.refresh[0].keys[0]
    refresh = DirectoryRefresh(".", (first, _GOOD.refresh[0].keys[1]))
    made = replace_build(_GOOD.build, **build)
    return RunRecord(build=made, refresh=(refresh,), environment="prod")


def replace_build(build: Build, **fields: object) -> Build:
    return msgspec.structs.replace(build, **fields)


@pytest.mark.parametrize(
    ("policy", "record", "rule", "sentence"),
    [
        (Policy(require=("Gone",)), _GOOD, "require", "no state for Gone"),
        (
            Policy(max_age=3599.0),
            _GOOD,
            "max-age",
            "Shop in .: its state was last confirmed 60 min",
        ),
        (
            Policy(max_age=1e9),
            _record(KeyRefresh("Shop", confirmed="2027-01-15T08:10:00Z")),
            "max-age",
            "in the future",
        ),
        (Policy(max_age=1e9), _record(KeyRefresh("Shop")), "max-age", "is not recorded"),
        (Policy(commit="1234567"), _GOOD, "commit", f"commit {_COMMIT}, not from 1234567"),
        (Policy(commit=_COMMIT), _record(commit=None), "commit", "not recorded"),
        (Policy(clean=True), _record(dirty=True), "clean", "with uncommitted changes"),
        (Policy(clean=True), _record(dirty=None), "clean", "not recorded"),
        (
            Policy(guarded=True),
            _record(guarded=False),
            "guarded",
            "without checking that git ignores the state",
        ),
        (
            Policy(no_stale=True),
            _record(KeyRefresh("Shop", stale=True, fetched="2027-01-14T07:00:00Z")),
            "no-stale",
            "the state of 2027-01-14T07:00:00Z was kept",
        ),
        (Policy(environment="dev"), _GOOD, "environment", "built for 'prod', not for 'dev'"),
        (Policy(min_entries={"Shop": 5}), _GOOD, "min-entries", "2 entries, fewer than 5"),
        (Policy(min_entries={"Gone": 0}), _GOOD, "min-entries", "no state for Gone"),
        (Policy(min_entries={"dbt": 3}), _GOOD, "min-entries", "dbt in .: its state has 2 entries"),
        (Policy(require_labels={"team": None}), _GOOD, "require-label", "no label team"),
    ],
)
def test_each_unmet_demand_is_one_message(
    directory: Path, policy: Policy, record: RunRecord, rule: str, sentence: str
) -> None:
    ((found, what),) = _breaches(directory, policy, record)
    assert found == rule
    assert rule in RULES
    assert sentence in what
    assert what.endswith(".")


def test_labels_are_compared(directory: Path) -> None:
    policy = Policy(require_labels={"team": "data", "tier": None})
    subject = _subject(directory, policy)
    good = msgspec.structs.replace(subject, labels={"team": "data", "tier": ""})
    assert judge(policy, good) == ()
    (breach,) = judge(policy, msgspec.structs.replace(subject, labels={"team": "web", "tier": ""}))
    assert breach.what == "Its label team is 'web', not 'data'."


def test_without_a_run_record_nothing_that_it_would_say_is_met(directory: Path) -> None:
    rules = {rule for rule, _ in _breaches(directory, _EVERYTHING, None)}
    assert rules == {"max-age", "commit", "clean", "guarded", "no-stale", "environment"}


@given(st.integers(0, 10**6), st.integers(0, 10**6))
def test_the_age_is_exact_to_the_second(age: int, most: int) -> None:
    confirmed = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(_NOW - age))
    subject = _aged(confirmed)
    assert bool(judge(Policy(max_age=float(most)), subject)) == (age > most)


@pytest.mark.parametrize(
    ("age", "most", "reported"),
    [
        (381, 1, "last confirmed 6.3 minutes ago, at .* maximum is 1 second"),
        (90_000, 86_400, "last confirmed 25 hours ago, at .* maximum is 24 hours"),
        (345_600, 119, "last confirmed 4 days ago, at .* maximum is 119 seconds"),
    ],
)
def test_ages_are_written_in_words(age: int, most: int, reported: str) -> None:
    confirmed = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(_NOW - age))
    (breach,) = judge(Policy(max_age=float(most)), _aged(confirmed))
    assert re.search(reported, breach.what), breach.what


def _aged(confirmed: str) -> Subject:
    from bundler.artifacts.verify import VerifiedDirectory
    from bundler.state.manifest import Contents, build, state_of
    from bundler.state.tree import StateTree

    manifest = build(Contents((state_of("Shop", "Shop", StateTree(())),)))
    refresh = DirectoryRefresh(".", (KeyRefresh("Shop", confirmed=confirmed),))
    verdict = Verdict(
        "x",
        "directory",
        None,
        (VerifiedDirectory(".", manifest, ()),),
        RunRecord(refresh=(refresh,)),
        (),
    )
    return Subject(verdict, {}, {}, _NOW)


# --- formats ------------------------------------------------------------------------------------


def _reports(directory: Path) -> Sequence[VerifyReport]:
    """One that passes, one that breaks a demand, one that is not intact."""
    policy = Policy(require=("Gone%\n::x",))
    subject = _subject(directory, policy)
    passed = VerifyReport("good", subject.verdict)
    broken = VerifyReport("old", subject.verdict, judge(policy, subject))
    (directory / "Shop" / "state").write_bytes(b"[]")
    with DirectoryArtifact(directory) as artifact:
        verdict = verify(artifact)
    with pytest.raises(VerificationFailed) as caught:
        verdict.raise_for_problems()
    return passed, broken, VerifyReport("bad", verdict, error=caught.value)


def test_the_error_of_a_report(directory: Path) -> None:
    passed, broken, bad = _reports(directory)
    assert passed.failure() is None
    assert isinstance(broken.failure(), Findings)
    assert isinstance(bad.failure(), VerificationFailed)


def test_json_has_a_version_and_says_what_is_wrong(directory: Path) -> None:
    reported = json.loads(formatted(_reports(directory), "json"))
    assert reported["schemaVersion"] == 2
    good, old, bad = reported["artifacts"]
    assert (good["verified"], good["passed"]) == (True, True)
    assert good["directories"][0]["keys"] == ["Shop", "dbt"]
    assert (old["verified"], old["passed"]) == (True, False)
    assert old["breaches"][0]["rule"] == "require"
    assert (bad["verified"], bad["passed"]) == (False, False)
    assert "Shop/state" in bad["problems"][0]


def test_an_artifact_that_is_named_twice_is_verified_once(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(cli, ["verify", str(directory), str(directory), "--format", "json"]) == 0
    (verified,) = json.loads(capsys.readouterr().out)["artifacts"]
    assert verified["name"] == str(directory)


def test_github_gets_one_command_a_finding_and_no_other(directory: Path) -> None:
    lines = formatted(_reports(directory), "github").splitlines()
    assert len(lines) == 2
    assert all(",title=state-bundler verify%3A " in line for line in lines)
    assert "%25%0A" in lines[0]


def test_sarif_names_only_rules_that_it_describes(directory: Path) -> None:
    reported = json.loads(formatted(_reports(directory), "sarif"))
    (run,) = reported["runs"]
    known = {rule["id"] for rule in run["tool"]["driver"]["rules"]}
    assert [result["ruleId"] for result in run["results"]] == ["require", "integrity"]
    assert {result["ruleId"] for result in run["results"]} <= known
    check_sarif(run)
