"""The commit being made: what its index holds, in every way in which git makes one.

Each test lets a real ``git commit`` run the hook, which is the installed ``state-guard``.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bundler.guard.quick import quick_check
from tests.support.workdir import CONTENT, GUARD, STATE, WorkDir

FILE = f"defs/{STATE}/Orders/state"


def install(wd: WorkDir, *names: str, arguments: str = "--staged") -> None:
    """Hooks that run the guard and nothing else."""
    hooks = Path(wd("git rev-parse --path-format=absolute --git-path hooks"))
    hooks.mkdir(exist_ok=True)
    for name in names:
        hook = hooks / name
        hook.write_text(f'#!/bin/sh\nexec "{GUARD}" {arguments}\n')
        hook.chmod(0o755)


@pytest.fixture
def repository(wd: WorkDir) -> WorkDir:
    wd.write("code.py")
    wd.commit("code")
    install(wd, "pre-commit", "pre-merge-commit")
    return wd


def refused(wd: WorkDir, command: str) -> bool:
    """Whether the guard refuses a commit, which then does not exist."""
    before = wd.run("git rev-parse -q --verify HEAD").stdout
    done = wd.run(command)
    changed = wd.run("git rev-parse -q --verify HEAD").stdout != before
    assert changed == (done.returncode == 0), done
    if done.returncode:
        assert b"The state file" in done.stderr, done.stderr
    return not changed


def test_forced_add(repository: WorkDir) -> None:
    repository.write(FILE)
    repository("git add -f -A")
    assert refused(repository, "git commit -m x")


def test_other_files_pass(repository: WorkDir) -> None:
    repository.write("more.py")
    repository("git add -A")
    assert not refused(repository, "git commit -m x")


def test_own_ignore_file_passes(repository: WorkDir) -> None:
    repository.write(f"defs/{STATE}/.gitignore", "*\n!.gitignore\n")
    repository("git add -A")
    assert not refused(repository, "git commit -m x")


def test_files_of_similar_names_pass(repository: WorkDir) -> None:
    for name in (f"{STATE}.md", f"x{STATE}/a", f"{STATE}s/a", "local_defs_state/a", f"a/{STATE}x"):
        repository.write(name, f"{name} is a text\n")
    repository("git add -A -f")
    assert not refused(repository, "git commit -m x")


def leak(wd: WorkDir) -> None:
    wd.write(FILE)
    wd("git add -f -A")
    wd("git commit -q --no-verify -m leak")


def test_the_commit_that_cures_a_leak_passes(repository: WorkDir) -> None:
    leak(repository)
    repository("git rm -r -q --cached defs")
    assert not refused(repository, "git commit -m cure")


def test_commit_paths_of_the_cure(repository: WorkDir) -> None:
    leak(repository)
    repository("git rm -r -q defs")
    repository.write("code.py", "changed\n")
    assert not refused(repository, f"git commit -m cure -- {FILE}")


def test_amend_keeps_an_old_leak(repository: WorkDir) -> None:
    leak(repository)
    assert refused(repository, "git commit --amend -m again")


def test_amend_that_cures(repository: WorkDir) -> None:
    leak(repository)
    repository("git rm -r -q --cached defs")
    assert not refused(repository, "git commit --amend --allow-empty -m cured")


def test_commit_all(repository: WorkDir) -> None:
    """With -a, git commits the index in index.lock."""
    leak(repository)
    repository("git rm -r -q --cached defs")
    repository("git commit -q --no-verify -m cure")
    repository.write("code.py", "changed\n")
    assert not refused(repository, "git commit -a -m x")
    repository("git add -f -A")
    repository.write("code.py", "changed again\n")
    assert refused(repository, "git commit -a -m x")


def test_commit_of_paths_alone(repository: WorkDir) -> None:
    """With paths, git commits a next-index that has nothing else of what is staged."""
    repository.write(FILE)
    repository("git add -f -A")
    repository.write("code.py", "changed\n")
    assert not refused(repository, "git commit -m x -- code.py")
    repository.write("code.py", "changed again\n")
    assert refused(repository, "git commit -i -m x -- code.py")


def test_commit_of_the_state_path_alone(repository: WorkDir) -> None:
    repository.write(FILE)
    repository("git add -f -A")
    assert refused(repository, f"git commit -m x -- {FILE}")


def test_commit_of_patches(repository: WorkDir) -> None:
    leak(repository)
    repository.write(FILE, "other\n")
    done = repository.run("git commit -p -m x", stdin=b"y\n")
    assert done.returncode == 1


def test_intent_to_add(repository: WorkDir) -> None:
    repository.write(FILE)
    repository("git add -f -N .")
    assert repository.guard("--staged").code == 1


@pytest.mark.parametrize("flag", ["--assume-unchanged", "--skip-worktree"])
def test_hidden_entries(repository: WorkDir, flag: str) -> None:
    leak(repository)
    repository(["git", "update-index", flag, FILE])
    assert repository("git status --porcelain") == ""
    assert repository.guard("--staged").code == 1
    assert repository.guard().code == 1


def test_unmerged_entry(repository: WorkDir) -> None:
    leak(repository)
    repository("git branch other")
    repository.write(FILE, "mine, and long enough to tell\n")
    repository("git commit -q --no-verify -a -m mine")
    repository("git checkout -q other")
    repository.write(FILE, "theirs, and long enough to tell\n")
    repository("git commit -q --no-verify -a -m theirs")
    assert repository.run("git merge main").returncode == 1
    assert len(repository("git ls-files -u").splitlines()) == 3
    said = repository.guard("--staged")
    assert (said.code, len(said.errors)) == (1, 1)


def test_merge(repository: WorkDir) -> None:
    repository("git checkout -q -b feature")
    leak(repository)
    repository("git checkout -q main")
    repository.write("more.py")
    repository.commit("more")
    assert refused(repository, "git merge --no-edit feature")


def test_merge_that_is_concluded_by_commit(repository: WorkDir) -> None:
    repository("git checkout -q -b feature")
    leak(repository)
    repository("git checkout -q main")
    repository.write("more.py")
    repository.commit("more")
    repository("git merge --no-commit feature")
    assert refused(repository, "git commit --no-edit")


@pytest.mark.parametrize("command", ["git cherry-pick feature", "git rebase feature"])
def test_what_runs_no_pre_commit_is_found_later(repository: WorkDir, command: str) -> None:
    repository("git checkout -q -b feature")
    leak(repository)
    repository("git checkout -q main")
    repository.write("more.py")
    repository.commit("more")
    repository(command)
    assert repository.guard("--staged").code == 1
    assert repository.guard().code == 1


def test_unborn_head(wd: WorkDir) -> None:
    install(wd, "pre-commit")
    wd.write(FILE)
    wd("git add -f -A")
    assert refused(wd, "git commit -m first")
    wd("git rm -rq --cached defs")
    wd.write("code.py")
    wd("git add code.py")
    assert not refused(wd, "git commit -m first")


def test_first_commit_without_an_index(wd: WorkDir) -> None:
    install(wd, "pre-commit")
    assert not refused(wd, "git commit --allow-empty -m first")


def test_linked_worktree(repository: WorkDir, tmp_path: Path) -> None:
    repository(["git", "worktree", "add", "-q", str(tmp_path / "linked")])
    linked = WorkDir(tmp_path / "linked", repository.env)
    linked.write(FILE)
    linked("git add -f -A")
    assert refused(linked, "git commit -m x")
    assert repository.guard("--staged").code == 0
    assert linked.at("defs").guard("--staged").code == 1
    (linked.path / "sub").mkdir()
    assert refused(linked.at("sub"), "git commit -m x")


def test_commit_from_a_subdirectory(repository: WorkDir) -> None:
    repository.write("sub/code.py")
    repository.write(FILE)
    repository("git add -f -A")
    assert refused(repository.at("sub"), "git commit -m x")


@pytest.mark.slow
def test_commit_in_a_submodule(repository: WorkDir, tmp_path: Path) -> None:
    library = WorkDir.make(tmp_path / "library")
    library.write("code.py")
    library.commit()
    repository.submodule(library, "lib")
    repository.commit("submodule")
    inside = repository.at("lib")
    install(inside, "pre-commit")
    inside.write(FILE)
    inside("git add -f -A")
    assert refused(inside, "git commit -m x")
    inside("git rm -rq --cached defs")
    inside.write("code.py", "changed\n")
    inside("git add code.py")
    assert not refused(inside, "git commit -m x")


def test_another_index_file(repository: WorkDir) -> None:
    repository.write(FILE)
    index = str(repository.path / "another")
    repository("git add -f -A", env={"GIT_INDEX_FILE": index})
    assert repository.guard("--staged").code == 0
    assert repository.guard("--staged", env={"GIT_INDEX_FILE": index}).code == 1


@pytest.mark.parametrize(
    "name",
    [
        b"new\nline",
        b"quo\"te's",
        b"-n",
        b":x",
        b":(glob)x",
        b"st*r[a-z]?",
        b"\xff\xfe latin \xe4",
        b" blank ",
        b"back\\slash",
        b"a" * 250,
    ],
)
def test_names(repository: WorkDir, name: bytes) -> None:
    for path in (b"defs/" + STATE.encode() + b"/K/" + name, name + b"/" + STATE.encode() + b"/s"):
        repository.write(path)
        repository(["git", "--literal-pathspecs", "add", "-f", "--", path])
        assert repository.guard("--staged").code == 1
        said = repository.guard()
        assert said.code == 1
        assert len(said.errors) == 1
        fix = next(line for line in said.err.splitlines() if "Fix: git rm" in line)
        if b"\n" not in name:  # a shell word may hold one, but this test reads lines
            repository([b"sh", b"-c", os.fsencode(fix.partition("Fix: ")[2])])
            assert repository("git ls-files -- defs") == ""
        repository("git read-tree HEAD")
        os.unlink(os.path.join(os.fsencode(repository.path), path))


def test_configured_directory_with_glob_characters(repository: WorkDir) -> None:
    repository.write(
        "pyproject.toml", '[[tool.state-bundler.source]]\nkey = "K"\npath = "a[b]*/:state"\n'
    )
    repository.write("a[b]*/:state/K/state", CONTENT)
    repository.write("ab/:state/K/state", "no state, whatever it is called\n")
    repository("git add -f -A")
    said = repository.guard("--staged")
    assert (said.code, len(said.errors)) == (1, 1)
    assert "a[b]*/:state/K/state" in said.errors[0]


def test_configuration_that_is_not_checked_out(repository: WorkDir) -> None:
    repository.write("app/pyproject.toml", '[[tool.state-bundler.source]]\npath = "state"\n')
    repository.write("app/state/K/state")
    repository("git add -f -A")
    (repository.path / "app/pyproject.toml").unlink()
    assert repository.guard("--staged").code == 1


SOURCE = '[[tool.state-bundler.source]]\npath = "{}"\n'


@pytest.mark.parametrize(
    ("staged", "on_disk", "code"),
    [
        (SOURCE.format("var/state"), None, 1),
        (SOURCE.format("var/state"), "", 1),
        (SOURCE.format("var/state"), SOURCE.format("other"), 1),
        ("", SOURCE.format("var/state"), 1),
        (SOURCE.format("other"), SOURCE.format("var/state"), 1),
        (SOURCE.format("other"), SOURCE.format("elsewhere"), 0),
        ("[tool.state-bundler\n", SOURCE.format("other"), 78),
        (SOURCE.format("other"), "[tool.state-bundler\n", 78),
        (SOURCE.format("var/state") + '[tool.state-bundler.guard]\nallow = ["var"]\n', "", 0),
        (SOURCE.format("var/state"), '[tool.state-bundler.guard]\nallow = ["var"]\n', 1),
        ("", SOURCE.format("var/state") + '[tool.state-bundler.guard]\nallow = ["var"]\n', 1),
    ],
)
def test_state_is_what_the_project_file_names_on_disk_or_as_it_is_staged(
    staged: str, on_disk: str | None, code: int, repository: WorkDir
) -> None:
    """Only the commit's own says what is allowed in it."""
    repository.write("app/pyproject.toml", staged)
    repository.write("app/var/state/K/state")
    repository("git add -f -A")
    if on_disk is not None:
        repository.write("app/pyproject.toml", on_disk)
    assert repository.guard("--staged").code == code
    if on_disk is not None:
        repository("git add app/pyproject.toml")
        after = repository.guard("--staged").code
        is_state = "var/state" in on_disk and "allow" not in on_disk
        assert after == (78 if "bundler\n" in on_disk else is_state)


def test_a_link_to_a_project_file_says_what_is_behind_it(repository: WorkDir) -> None:
    repository.write("state-bundler/pyproject.toml", SOURCE.format("state"))
    (repository.path / "app").mkdir()
    (repository.path / "app/pyproject.toml").symlink_to("../state-bundler/pyproject.toml")
    repository("git add -A")
    assert repository.guard("--staged").code == 0
    repository.write("app/state/K/state")
    repository("git add -f -A")
    assert repository.guard("--staged").code == 1


@pytest.mark.parametrize("algorithm", ["sha1", "sha256"])
def test_a_staged_project_file_needs_no_git_process(
    algorithm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With any line ends, and only if it is staged as it is."""
    wd = WorkDir.make(tmp_path / "r", options=[f"--object-format={algorithm}"])
    wd.write(".gitattributes", "crlf/* text=auto\n")
    text = SOURCE.format("state")
    for folder, end in (("lf", "\n"), ("crlf", "\r\n"), ("as-it-is", "\r\n"), ("d/" * 300, "\n")):
        (wd.path / folder).mkdir(parents=True)
        (wd.path / folder / "pyproject.toml").write_bytes(text.replace("\n", end).encode())
    wd("git add -A")
    monkeypatch.chdir(wd.path)
    assert quick_check() == ()
    wd.write("lf/pyproject.toml", text + "# later\n")
    assert quick_check() is None
    wd("git add -A")
    assert quick_check() == ()


def test_a_link_of_the_name(repository: WorkDir) -> None:
    """State is where it leads, whether the link is staged or a project is known to expect it."""
    repository.write("data/K/state", CONTENT)
    (repository.path / "src/shop/defs").mkdir(parents=True)
    (repository.path / f"src/shop/defs/{STATE}").symlink_to("../../../data")
    repository("git add data")
    assert repository.guard("--staged").code == 0
    repository("git add src")
    assert repository.guard("--staged").errors == [
        "✗ findings (1): The state file data/K/state is in the index."
    ]
    repository("git rm -q --cached -r src")
    repository.write("pyproject.toml", '[tool.dg.project]\nroot_module = "shop"\n')
    repository("git add pyproject.toml")
    assert repository.guard("--staged").code == 1


@pytest.mark.parametrize("name", ["pyproject.toml", "dg.toml"])
def test_a_copy_of_the_state_of_a_dagster_project(repository: WorkDir, name: str) -> None:
    """The fast check compares with the same directories as the full one."""
    table = "tool.dg.project" if name == "pyproject.toml" else "project"
    repository.write("pyproject.toml", '[project]\nname = "shop"\n')
    repository.write(name, f'[{table}]\nroot_module = "shop"\n')
    repository.write(f"src/shop/defs/{STATE}/K/state")
    repository.write("copy.json", CONTENT)
    repository("git add pyproject.toml copy.json")
    assert repository.guard("--staged").code == 1


def test_broken_configuration(repository: WorkDir) -> None:
    repository.write("pyproject.toml", "[tool.state-bundler\n")
    repository("git add -A")
    assert repository.guard("--staged").code == 78


def test_broken_configuration_of_dagster_s(repository: WorkDir) -> None:
    repository.write("pyproject.toml", "[tool.dg.project\nroot_module = 'x'\n")
    repository("git add -A")
    said = repository.guard("--staged")
    assert (said.code, "pyproject.toml is not valid TOML" in said.err) == (78, True)


def test_gitlink_below_a_state_directory(repository: WorkDir) -> None:
    commit = repository("git rev-parse HEAD")
    place = f"defs/{STATE}/K/project"
    repository(["git", "update-index", "--add", "--cacheinfo", f"160000,{commit},{place}"])
    assert repository.guard("--staged").code == 1


def test_symlink_below_a_state_directory(repository: WorkDir) -> None:
    (repository.path / "defs" / STATE).mkdir(parents=True)
    (repository.path / "defs" / STATE / "K").symlink_to("/etc/hostname")
    repository("git add -f -A")
    assert repository.guard("--staged").code == 1


def test_held_lock(repository: WorkDir) -> None:
    repository.write(FILE)
    repository("git add -f -A")
    (repository.path / ".git" / "index.lock").touch()
    assert repository.guard("--staged").code == 1
    assert repository.guard().code == 1


def test_strict(repository: WorkDir) -> None:
    assert repository.guard("--staged", "--strict").code == 0
