"""Whether a fresh clone protects a state directory, against what a real clone says.

The quick answer (the rule of the root's ignore file decides here, and HEAD's ignore files lie here
unaltered) must be the one that the long way gets from an empty work tree.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.support.workdir import STATE, WorkDir

DIRECTORY = f"a/b/{STATE}"
PLACES = ("", "a/", "a/b/", f"{DIRECTORY}/")
RULES = (f"{STATE}/", f"/a/b/{STATE}/", f"!{STATE}/", f"/b/{STATE}", "a/", "!a/", "state", "!state",
         "*", "!*/", f"!/b/{STATE}/")  # fmt: skip
rules = st.lists(st.sampled_from(RULES), max_size=2).map("\n".join)
files = st.dictionaries(st.sampled_from(PLACES), rules, max_size=3)


@pytest.mark.slow
@given(
    committed=files,
    changed=files,
    removed=st.sets(st.sampled_from(PLACES), max_size=2),
    exclude=st.one_of(st.just(""), rules),
    personal=st.sampled_from([None, ".gitignore", "a/.gitignore"]),
)
# The root's rule decides here; in a clone one further down takes the protection away.
@example({"": f"{STATE}/", "a/": f"!{STATE}/"}, {}, {"a/"}, "", None)
# The same text, read as though it were at the root, is another rule.
@example({"": "", "a/": f"/a/b/{STATE}/"}, {}, set(), "", "a/.gitignore")
@example({"": f"{STATE}/"}, {"a/": f"!{STATE}/", "a/b/": f"{STATE}/"}, set(), "", ".gitignore")
@settings(
    max_examples=int(os.environ.get("GUARD_EXAMPLES", "12")),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
def test_durable_is_what_a_clone_ignores(
    committed: dict[str, str],
    changed: dict[str, str],
    removed: set[str],
    exclude: str,
    personal: str | None,
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        wd = WorkDir.make(Path(folder) / "r")
        wd.write("a/b/code.py")
        wd("git add -f -A")
        for place, text in committed.items():
            wd.write(f"{place}.gitignore", text)
            wd(["git", "add", "-f", f"{place}.gitignore"])
        wd.commit("rules", add=False)
        for place, text in changed.items():
            wd.write(f"{place}.gitignore", text)
        for place in removed & set(committed):
            (wd.path / f"{place}.gitignore").unlink()
        wd.write(f"{DIRECTORY}/K/state", "the content of a state\n")
        wd.write(".git/info/exclude", exclude)
        if personal:
            wd(["git", "config", "core.excludesFile", personal])
        said = json.loads(wd.guard("--format", "json").out)["findings"]
        found = {each["rule"] for each in said if each["where"] == DIRECTORY}
        if "state-unprotected" in found:
            return
        wd(["git", "clone", "-q", "--no-local", ".", "../clone"])
        ask = ["git", "check-ignore", "-q", "--no-index", f"{DIRECTORY}/K/state"]
        in_clone = wd.at("..", "clone").run(ask).returncode == 0
        assert ("protection-local" not in found) == in_clone, (found, in_clone)


def test_a_rule_that_is_written_wants_only_a_commit(wd: WorkDir) -> None:
    wd.write("code.py")
    wd.commit("code")
    wd.write(f"{DIRECTORY}/K/state", "the content of a state\n")

    def fix() -> str:
        (finding,) = json.loads(wd.guard("--format", "json").out)["findings"]
        return f"{finding['rule']}: {finding['fix']}"

    wd.write(".git/info/exclude", f"{STATE}/\n")
    assert fix().startswith("protection-local: printf")
    wd.write(".gitignore", f"{STATE}/\n")
    rule, _, command = fix().partition(": ")
    assert (rule, "printf" in command) == ("protection-local", False)
    wd(["sh", "-c", command])
    assert json.loads(wd.guard("--format", "json").out)["findings"] == []


@pytest.mark.parametrize(("rule", "questions"), [(f"{STATE}/\n", 5), (f"/*/b/{STATE}/\n", 5)])
def test_as_few_git_processes_as_can_be(wd: WorkDir, rule: str, questions: int) -> None:
    """A build waits for each: where the repository is as usual, one for each thing to be known."""
    log = wd.path.parent / "log"
    real = wd("sh -c 'command -v git'")
    fake = wd.path.parent / "bin" / "git"
    fake.parent.mkdir()
    fake.write_text(f'#!/bin/sh\necho "$*" >> "{log}"\nexec "{real}" "$@"\n')
    fake.chmod(0o755)
    wd.write(".gitignore", rule)
    wd.write("code.py")
    wd.commit("code")
    wd.write(f"{DIRECTORY}/K/state", '{"rows": [1, 2, 3, 4, 5, 6, 7, 8]}\n')
    wd.env["PATH"] = f"{fake.parent}{os.pathsep}{wd.env['PATH']}"
    said = wd.guard()
    assert (said.code, said.warnings) == (0, [])
    assert len(log.read_text().splitlines()) == questions


@pytest.mark.parametrize("how", ["a link", "unmerged"])
def test_a_root_rule_that_no_clone_has_is_not_durable(wd: WorkDir, how: str) -> None:
    wd.write("rules", f"{STATE}/\n")
    wd.write("code.py")
    if how == "a link":
        (wd.path / ".gitignore").symlink_to("rules")
    else:
        wd.write(".gitignore", "")
    wd.commit("code")
    (wd.path / ".gitignore").unlink()
    wd.write(".gitignore", f"{STATE}/\n")
    if how == "unmerged":
        blob = wd("git hash-object -w .gitignore")
        entries = "".join(f"100644 {blob} {stage}\t.gitignore\n" for stage in (2, 3))
        wd("git update-index --force-remove .gitignore")
        wd("git update-index --index-info", stdin=entries.encode())
    wd.write(f"{DIRECTORY}/K/state")
    assert [line for line in wd.guard().warnings if "on this machine only" in line]


def test_nothing_is_left_behind_by_a_guard_that_is_ended(wd: WorkDir, tmp_path: Path) -> None:
    wd.write("a/.gitignore", f"{STATE}\n")
    wd.write(f"a/{STATE}/Key/state", "a state that was fetched")
    wd.commit("rules")
    scratch, started = tmp_path / "scratch", tmp_path / "started"
    scratch.mkdir()
    git = tmp_path / "bin" / "git"
    git.parent.mkdir()
    git.write_text(f"""\
#!/bin/sh
case "$GIT_WORK_TREE" in "{scratch}"*) touch "{started}"; exec sleep 60 ;; esac
exec {shutil.which("git")} "$@"
""")
    git.chmod(0o755)
    path = f"{git.parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "TMPDIR": str(scratch)}
    guard = Path(sys.executable).with_name("state-guard")
    with subprocess.Popen([guard], cwd=wd.path, env=environment) as process:
        while not started.exists():
            assert process.poll() is None
            time.sleep(0.02)
        process.terminate()
        assert process.wait(30) == 128 + signal.SIGTERM
    assert list(scratch.iterdir()) == []
