"""The guard before a build: index, HEAD and ignore rules, asked of real git."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from bundler.cli import guard_command as command
from bundler.errors import ToolFailed
from bundler.guard.moments import check
from tests.support.sarif import check_sarif
from tests.support.workdir import CONTENT, STATE, WorkDir

DEFS = "src/shop/defs"
DIRECTORY = f"{DEFS}/{STATE}"
FILE = f"{DIRECTORY}/Orders/state"
OWN_RULE = f"{DIRECTORY}/.gitignore"


@pytest.fixture
def project(wd: WorkDir) -> WorkDir:
    """A repository with code, a durable rule, and a state on disk."""
    wd.write(f"{DEFS}/__init__.py", "")
    wd.write(".gitignore", f"{STATE}/\n")
    wd.commit("code")
    wd.write(FILE)
    return wd


def would_take(wd: WorkDir) -> list[str]:
    """What a real ``git add -A`` would take from any state directory."""
    taken = wd("git add -A --dry-run").splitlines()
    return [line for line in taken if STATE in line and not line.endswith(f"{STATE}/.gitignore'")]


def test_clean_with_a_committed_rule(project: WorkDir) -> None:
    said = project.guard()
    assert (said.code, said.errors, said.warnings) == (0, [], [])
    assert "1 state directory is ignored by git" in said.err
    assert would_take(project) == []


def test_state_in_the_index_and_not_in_head(project: WorkDir) -> None:
    project(["git", "add", "-f", FILE])
    said = project.guard()
    assert said.code == 1
    assert said.errors == [f"✗ findings (1): The state file {FILE} is in the index."]


def test_state_in_the_index_and_in_head(project: WorkDir) -> None:
    project(["git", "add", "-f", FILE])
    project.commit("leak", add=False)
    said = project.guard()
    assert said.code == 1
    assert said.errors == [f"✗ findings (1): The state file {FILE} is in the index and in HEAD."]


def test_state_in_head_that_is_staged_for_removal(project: WorkDir) -> None:
    project(["git", "add", "-f", FILE])
    project.commit("leak", add=False)
    project(["git", "rm", "-q", "--cached", FILE])
    said = project.guard()
    assert said.code == 1
    assert "is in HEAD, although it is no longer in the index" in said.errors[0]


def test_the_command_that_it_advises_fixes_it(project: WorkDir) -> None:
    project(["git", "add", "-f", FILE])
    project.commit("leak", add=False)
    fix = next(line for line in project.guard().err.splitlines() if "Fix: " in line)
    project(["sh", "-c", fix.partition("Fix: ")[2]])
    project.commit("cure", add=False)
    assert project.guard().code == 0


@pytest.mark.parametrize("asked", [(), ("--staged",)])
def test_every_state_file_has_its_message_and_one_command_fixes_all(
    project: WorkDir, asked: tuple[str, ...]
) -> None:
    for name in ("Customers/project/target/manifest.json", "It's one/state", "Öl -- x/state"):
        project.write(f"{DIRECTORY}/{name}")
    project(["git", "add", "-f", DIRECTORY])
    said = project.guard(*asked)
    assert len(said.errors) == 4
    (fix,) = [line for line in said.err.splitlines() if "Fix: git rm" in line]
    project(["sh", "-c", fix.partition("Fix: ")[2]])
    assert project.guard(*asked).code == 0


def test_unprotected_state_directory(wd: WorkDir) -> None:
    wd.write("README")
    wd.commit()
    wd.write(FILE)
    said = wd.guard()
    assert said.code == 1
    assert f"git add -A would add 1 file of the state directory {DIRECTORY}" in said.errors[0]
    assert would_take(wd)
    fix = next(line for line in said.err.splitlines() if "Fix: " in line)
    wd(["sh", "-c", fix.partition("Fix: ")[2]])
    assert wd.guard().code == 0
    assert would_take(wd) == []


def test_own_rule_protects_where_it_was_made_alone(wd: WorkDir) -> None:
    wd.write("README")
    wd.commit()
    wd.write(FILE)
    wd.write(OWN_RULE, "*\n")
    said = wd.guard()
    assert (said.code, len(said.warnings)) == (0, 1)
    assert "on this machine only" in said.warnings[0]
    assert wd.guard("--strict").code == 1


@pytest.mark.parametrize("place", ["exclude", "global", "xdg", "uncommitted"])
def test_protection_of_this_machine_only(wd: WorkDir, place: str) -> None:
    wd.write("README")
    wd.commit()
    wd.write(FILE)
    rule = f"{STATE}/\n"
    if place == "exclude":
        wd.write(".git/info/exclude", rule)
    elif place == "global":
        wd.write("../ignore", rule)
        wd(["git", "config", "--global", "core.excludesFile", str(wd.path.parent / "ignore")])
    elif place == "xdg":
        config = Path(wd.env["XDG_CONFIG_HOME"]) / "git"
        config.mkdir()
        (config / "ignore").write_text(rule)
    else:
        wd.write(".gitignore", rule)
    said = wd.guard()
    assert (said.code, len(said.warnings)) == (0, 1), said
    assert "on this machine only" in said.warnings[0]
    assert would_take(wd) == []


def test_committed_contents_rule_next_to_dagsters_own_rule(wd: WorkDir) -> None:
    """The deeper file decides here; a clone has the committed one, which is as good."""
    wd.write(".gitignore", f"**/{STATE}/**\n")
    wd.commit()
    wd.write(FILE)
    wd.write(OWN_RULE, "*\n")
    said = wd.guard()
    assert (said.code, said.warnings) == (0, [])


def test_committed_own_rule_is_durable_and_no_state(wd: WorkDir) -> None:
    wd.write(OWN_RULE, "*\n!.gitignore\n")
    wd.commit()
    wd.write(FILE)
    said = wd.guard()
    assert (said.code, said.errors, said.warnings) == (0, [], [])


def test_a_negated_rule_does_not_protect(wd: WorkDir) -> None:
    wd.write(".gitignore", f"{STATE}/*\n!{STATE}/Orders\n")
    wd.commit()
    wd.write(FILE)
    assert would_take(wd)
    assert wd.guard().code == 1


def test_below_an_excluded_directory_a_negated_rule_means_nothing(wd: WorkDir) -> None:
    wd.write(".gitignore", f"{STATE}/\n!{STATE}/Orders\n")
    wd.commit()
    wd.write(FILE)
    assert would_take(wd) == []
    assert wd.guard().code == 0


@pytest.mark.parametrize(
    ("rule", "protects"),
    [
        (f"{STATE}/ # the state\n".encode(), False),
        (f"{STATE.upper()}/\n".encode(), False),
        (f"{STATE}/\n".encode("utf-16"), False),
        (b"\xef\xbb\xbf" + f"{STATE}/\n".encode(), True),
        (f"{STATE}/\r\n".encode(), False),
        (f"{STATE}\\ \n".encode(), False),
        (f"{STATE}/".encode(), True),
        (f"  {STATE}/\n".encode(), False),
        (f"/{STATE}/\n".encode(), False),
        (b"/src/*/defs/.local*/\n", True),
        (b"state\n", True),
        (b"*.json\n", False),
    ],
)
def test_which_rules_are_effective(wd: WorkDir, rule: bytes, protects: bool) -> None:
    wd.write(".gitignore", rule)
    wd.commit()
    wd.write(FILE)
    really = not would_take(wd)
    said = wd.guard()
    assert (said.code == 0) == really, said
    if rule.endswith(b"\r\n"):  # git has changed its mind about it: only the truth counts
        return
    assert really == protects


def test_a_symlinked_ignore_file_is_not_one(wd: WorkDir) -> None:
    wd.write("rules", f"{STATE}/\n")
    (wd.path / ".gitignore").symlink_to("rules")
    wd.commit()
    wd.write(FILE)
    assert would_take(wd)
    assert wd.guard().code == 1


def test_link_of_the_name_with_a_rule_for_directories(wd: WorkDir) -> None:
    """``.local_defs_state/`` does not match a link, but what is behind it is what counts."""
    wd.write(".gitignore", f"{STATE}/\n")
    wd.commit()
    wd.write("data/Orders/state")
    (wd.path / "defs").mkdir()
    (wd.path / "defs" / STATE).symlink_to("../data")
    said = wd.guard()
    assert said.code == 1
    assert "of the state directory data" in said.errors[0]


def test_link_of_the_name_out_of_the_repository(wd: WorkDir) -> None:
    wd.write(".gitignore", f"{STATE}\n")
    wd.commit()
    (wd.path.parent / "elsewhere").mkdir()
    (wd.path / STATE).symlink_to(wd.path.parent / "elsewhere")
    assert wd.guard().code == 0


def test_empty_state_directory_is_not_taken(wd: WorkDir) -> None:
    wd.write("README")
    wd.commit()
    (wd.path / STATE).mkdir()
    said = wd.guard()
    assert (said.code, len(said.warnings)) == (0, 1)
    assert "No ignore rule covers" in said.warnings[0]


def test_fresh_clone_without_a_rule(wd: WorkDir, tmp_path: Path) -> None:
    wd.write("pyproject.toml", '[tool.dg.project]\nroot_module = "shop"\n')
    wd.write(f"{DEFS}/__init__.py", "")
    wd.commit()
    wd(["git", "clone", "-q", str(wd.path), str(tmp_path / "clone")])
    said = WorkDir(tmp_path / "clone", wd.env).guard()
    assert (said.code, len(said.warnings)) == (0, 1)
    assert f"No ignore rule covers the state directory {DIRECTORY} yet" in said.warnings[0]


def test_nested_repository_inside_state(project: WorkDir) -> None:
    """dbt's git component clones into the state."""
    inside = project.at(DIRECTORY, "Dbt")
    inside.path.mkdir()
    inside("git init -q")
    inside.write("project/dbt_project.yml")
    inside.commit()
    assert project.guard().code == 0
    (project.path / ".gitignore").unlink()
    assert would_take(project)
    assert project.guard().code == 1


def test_configured_directory_of_any_place(wd: WorkDir) -> None:
    wd.write(
        "apps/feed/pyproject.toml",
        '[[tool.state-bundler.source]]\nkey = "Feed"\ncommand = ["true"]\npath = "var/state"\n',
    )
    wd.commit()
    wd.write("apps/feed/var/state/Feed/state")
    said = wd.guard()
    assert said.code == 1
    assert "of the state directory apps/feed/var/state" in said.errors[0]
    fix = next(line for line in said.err.splitlines() if "Fix: " in line)
    wd(["sh", "-c", fix.partition("Fix: ")[2]])
    wd.commit("rule", add=False)
    said = wd.guard()
    assert (said.code, said.warnings) == (0, [])
    wd("git add -f apps/feed/var")
    assert wd.guard().code == 1
    assert wd.guard("--staged").code == 1


def test_directory_named_on_the_command_line(wd: WorkDir) -> None:
    wd.write("README")
    wd.commit()
    wd.write("cache/vendor/Orders/state")
    assert wd.guard().code == 0
    said = wd.guard("cache/vendor")
    assert said.code == 1
    assert "state directory cache/vendor" in said.errors[0]
    assert wd.at("cache").guard("vendor").code == 1
    assert wd.guard("--staged", "cache/vendor").code == 0
    wd("git add -A")
    assert wd.guard("--staged", "cache/vendor").code == 1


def test_directory_outside_of_the_repository_is_refused(wd: WorkDir) -> None:
    said = wd.guard("/")
    assert said.code == 71
    assert "is not inside the repository" in said.err


def test_every_project_of_a_monorepo(wd: WorkDir) -> None:
    wd.write("README")
    wd.commit()
    for name in ("a", "b"):
        wd.write(f"projects/{name}/defs/{STATE}/K/state")
    assert len(wd.guard().errors) == 2
    assert len(wd.at("projects", "a").guard().errors) == 2


def test_submodule(wd: WorkDir, tmp_path: Path) -> None:
    library = WorkDir.make(tmp_path / "library")
    library.write(FILE)
    library.commit()
    wd.write("README")
    wd(
        [
            "git",
            "-c",
            "protocol.file.allow=always",
            "submodule",
            "add",
            "-q",
            str(library.path),
            "lib",
        ]
    )
    wd.commit()
    said = wd.guard()
    assert said.code == 1
    assert f"In lib: The state file {FILE} is in the index" in said.errors[0]
    project = wd.at("lib")
    project(["git", "rm", "-rq", "--cached", DIRECTORY])
    project.write(".gitignore", f"{STATE}/\n")
    project.commit("cure")
    assert wd.guard().code == 0


def test_repository_that_is_not_ours_inside(project: WorkDir) -> None:
    """A clone that somebody keeps in the work tree, ignored: nothing of it gets in."""
    project.write(".gitignore", f"{STATE}/\nvendor/\n")
    other = project.at("vendor", "other")
    other.path.mkdir(parents=True)
    other("git init -q")
    other.write(FILE)
    other.commit()
    assert project.guard().code == 0


def test_fixtures_that_are_committed_on_purpose(project: WorkDir) -> None:
    fixture = f"tests/fixture/{STATE}/K/state"
    project.write(fixture)
    project.write(f"tests/other/{STATE}/K/state", "another content, long enough\n")
    project("git add -f tests")
    assert len(project.guard().errors) >= 2
    assert len(project.guard("--allow", "tests/fixture").errors) == 1
    assert project.guard("--allow", "tests/*").code == 0
    project.write("pyproject.toml", '[tool.state-bundler]\nguard.allow = ["tests"]\n')
    project("git add pyproject.toml")
    assert project.guard().code == 0
    assert project.guard("--staged").code == 0


def test_json(project: WorkDir) -> None:
    project(["git", "add", "-f", FILE])
    said = project.guard("--format", "json")
    report = json.loads(said.out)
    assert (said.code, report["schemaVersion"], report["failed"]) == (1, 2, True)
    assert report["findings"][0]["where"] == FILE
    assert report["directories"] == [DIRECTORY]


def test_github(project: WorkDir) -> None:
    project(["git", "add", "-f", FILE])
    said = project.guard("--format=github")
    assert said.out.startswith(f"::error file={FILE},title=state-in-index::The state file")
    assert len(said.out.splitlines()) == 1


def test_sarif(project: WorkDir) -> None:
    project(["git", "add", "-f", FILE])
    run = json.loads(project.guard("--format=sarif").out)["runs"][0]
    names = {rule["id"] for rule in run["tool"]["driver"]["rules"]}
    assert {result["ruleId"] for result in run["results"]} <= names
    check_sarif(run)
    place = run["results"][0]["locations"][0]["physicalLocation"]["artifactLocation"]
    assert place["uri"] == FILE


def test_formats_of_names_that_are_not_utf_8(project: WorkDir) -> None:
    name = os.fsdecode(f"{DIRECTORY}/Orders/".encode() + b"st\xe4te\n%,:")
    project.write(name)
    project(["git", "add", "-f", DIRECTORY])
    assert len(json.loads(project.guard("--format=json").out)["findings"]) == 2
    assert len(project.guard("--format=github").out.splitlines()) == 2
    json.loads(project.guard("--format=sarif").out)
    assert len(project.guard().errors) == 2


def test_the_command_of_state_bundler(project: WorkDir) -> None:
    project(["git", "add", "-f", FILE])
    done = project.run("state-bundler guard --format json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["failed"]
    assert project.run("state-bundler guard --allow src").returncode == 0


def test_library(project: WorkDir, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, value in project.env.items():
        monkeypatch.setenv(name, value)
    verdict = check(project.path / "src", "build")
    assert (verdict.failed, verdict.directories) == (False, (DIRECTORY,))
    project.write(OWN_RULE, f"{CONTENT}")
    project(["git", "add", "-f", FILE])
    verdict = check(project.path, "build", allow=["src/shop/*/.local_defs_state"])
    assert not verdict.failed
    (tmp_path / "bare-directory").mkdir()
    with pytest.raises(ToolFailed, match="not in a git repository"):
        check(tmp_path / "bare-directory")


@pytest.mark.parametrize(
    "arguments",
    [["--nonsense"], ["--staged", "--push"], ["--format", "xml"], ["--allow"], ["--staged", "-x"]],
)
def test_usage(wd: WorkDir, arguments: list[str]) -> None:
    assert wd.guard(*arguments).code == 2


def test_a_bug_is_not_a_finding(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(command, "check", broken)
    assert command.run([]) == 70
    assert "this is a bug in state-bundler" in capfd.readouterr().err


def test_help_and_version(wd: WorkDir) -> None:
    assert "--history" in wd.guard("--help").out
    assert wd.guard("--version").out.startswith("state-guard, version ")
