"""Every kind of repository: the right answer, or a refusal that says why, never a wrong "clean"."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import pytest

from bundler.git.repository import OLDEST_GIT
from tests.support.workdir import CONTENT, STATE, WorkDir

DIRECTORY = f"src/defs/{STATE}"
FILE = f"{DIRECTORY}/Orders/state"


def fill(wd: WorkDir, *, leak: bool) -> None:
    wd.write("src/code.py")
    wd.write("docs/text.md")
    wd.write(".gitignore", f"{STATE}/\n")
    wd.commit("code")
    if leak:
        wd.write(FILE)
        wd("git add -f -A")
        wd.commit("leak", add=False)


@pytest.fixture
def leaky(wd: WorkDir) -> WorkDir:
    fill(wd, leak=True)
    return wd


@pytest.fixture
def clean(wd: WorkDir) -> WorkDir:
    fill(wd, leak=False)
    return wd


def finds_it(wd: WorkDir, *, history: bool = True) -> None:
    assert wd.guard("--staged").code == 1
    assert wd.guard().code == 1
    if history:
        assert wd.guard("--history").code == 1


def finds_nothing(wd: WorkDir) -> None:
    for moment in (["--staged"], [], ["--history"]):
        said = wd.guard(*moment)
        assert said.code == 0, said


def cannot_tell(wd: WorkDir, *arguments: str) -> str:
    said = wd.guard(*arguments)
    assert said.code == 71, said
    assert said.err.startswith("✗ tool failed (71): ")
    assert "Traceback" not in said.err
    return said.err


@pytest.mark.parametrize(
    "commands",
    [
        ["git update-index --index-version 2"],
        ["git update-index --index-version 3"],
        ["git update-index --index-version 4"],
        ["git update-index --split-index"],
        ["git update-index --untracked-cache"],
        ["git config index.skipHash true", "git update-index --force-write-index"],
        ["git config index.recordEndOfIndexEntries true", "git update-index --force-write-index"],
        ["git config core.commitGraph true", "git commit-graph write --reachable --changed-paths"],
        ["git gc -q"],
        ["git pack-refs --all"],
    ],
)
@pytest.mark.parametrize("leak", [True, False])
def test_formats(wd: WorkDir, commands: list[str], *, leak: bool) -> None:
    fill(wd, leak=leak)
    for command in commands:
        wd(command)
    if leak:
        finds_it(wd)
    else:
        finds_nothing(wd)


def test_split_index_with_the_leak_in_the_shared_part(leaky: WorkDir) -> None:
    leaky("git config core.splitIndex true")
    leaky("git config splitIndex.maxPercentChange 100")
    leaky("git update-index --split-index")
    leaky.write("more.py")
    leaky("git add more.py")
    assert f"{STATE}/".encode() not in (leaky.path / ".git/index").read_bytes()
    finds_it(leaky)


def test_sha256(tmp_path: Path) -> None:
    for leak in (True, False):
        wd = WorkDir.make(tmp_path / str(leak), options=["--object-format=sha256"])
        fill(wd, leak=leak)
        if leak:
            finds_it(wd)
        else:
            finds_nothing(wd)


def test_sparse_checkout(leaky: WorkDir) -> None:
    leaky("git sparse-checkout set --cone docs")
    assert not (leaky.path / FILE).exists()
    finds_it(leaky)


def test_sparse_index(leaky: WorkDir) -> None:
    leaky("git sparse-checkout set --cone --sparse-index docs")
    assert b"src/defs" not in (leaky.path / ".git/index").read_bytes()
    finds_it(leaky)


def test_sparse_index_without_a_leak(clean: WorkDir) -> None:
    clean("git sparse-checkout set --cone --sparse-index docs")
    finds_nothing(clean)


def test_separate_git_directory(tmp_path: Path) -> None:
    wd = WorkDir.make(tmp_path / "work", options=[f"--separate-git-dir={tmp_path / 'elsewhere'}"])
    fill(wd, leak=True)
    finds_it(wd)
    finds_it(wd.at("src"))


def test_git_dir_and_work_tree_in_the_environment(leaky: WorkDir, tmp_path: Path) -> None:
    other = WorkDir(tmp_path, leaky.env)
    place = {"GIT_DIR": str(leaky.path / ".git"), "GIT_WORK_TREE": str(leaky.path)}
    assert leaky.guard("--staged", env=place).code == 1
    assert leaky.at("src").guard("--staged", env=place).code == 1
    assert leaky.at("src").guard(env=place).code == 1
    assert other.guard(env=place).code == 71


def test_git_dir_of_another_repository_in_the_environment(clean: WorkDir, tmp_path: Path) -> None:
    """A build that is started from another repository's hook is about the project it builds."""
    other = WorkDir.make(tmp_path / "other")
    fill(other, leak=True)
    place = {"GIT_DIR": str(clean.path / ".git"), "GIT_INDEX_FILE": str(clean.path / ".git/index")}
    assert clean.guard("-C", str(other.path), env=place).code == 1
    assert other.guard("-C", str(clean.path)).code == 0


@pytest.mark.slow
def test_bare(leaky: WorkDir, tmp_path: Path) -> None:
    leaky(["git", "clone", "-q", "--bare", str(leaky.path), str(tmp_path / "bare.git")])
    bare = WorkDir(tmp_path / "bare.git", leaky.env)
    assert bare.guard("--history").code == 1
    assert "has no work tree" in cannot_tell(bare)
    assert "has no work tree" in cannot_tell(bare, "--staged")
    bare("git config --global safe.bareRepository explicit")
    (fix,) = re.findall("If you trust this one: (.*)", cannot_tell(bare, "--history"))
    bare(["sh", "-c", fix])
    assert bare.guard("--history").code == 1


def test_a_bare_repository_inside_a_work_tree(clean: WorkDir) -> None:
    clean("git init -q --bare fixtures/bare.git")
    assert "has no work tree" in cannot_tell(clean.at("fixtures", "bare.git"), "--staged")
    assert clean.at("fixtures").guard("--staged").code == 0


def test_shallow(clean: WorkDir, tmp_path: Path) -> None:
    clean.write("more.py")
    clean.commit()
    clean(["git", "clone", "-q", "--depth=1", f"file://{clean.path}", str(tmp_path / "shallow")])
    shallow = WorkDir(tmp_path / "shallow", clean.env)
    assert shallow.guard().code == 0
    assert shallow.guard("--staged").code == 0
    cannot_tell(clean, "--history", "-C", str(shallow.path))
    (fix,) = re.findall(r"Run (git fetch --unshallow) ", cannot_tell(shallow, "--history"))
    shallow(["sh", "-c", fix])
    assert shallow.guard("--history").code == 0


def test_shallow_that_shows_a_leak(leaky: WorkDir, tmp_path: Path) -> None:
    leaky(["git", "clone", "-q", "--depth=1", f"file://{leaky.path}", str(tmp_path / "shallow")])
    shallow = WorkDir(tmp_path / "shallow", leaky.env)
    said = shallow.guard("--history")
    assert (said.code, len(said.errors), len(said.warnings)) == (1, 1, 1)
    (fix,) = re.findall(r"Fix: (git fetch --unshallow)$", said.err, re.MULTILINE)
    shallow(["sh", "-c", fix])
    assert shallow.guard("--history").warnings == []


def test_blobless(leaky: WorkDir, tmp_path: Path) -> None:
    leaky("git config uploadpack.allowFilter true")
    filtered = ["git", "clone", "-q", "--filter=blob:none", f"file://{leaky.path}"]
    leaky([*filtered, str(tmp_path / "blobless")])
    finds_it(WorkDir(tmp_path / "blobless", leaky.env))


@pytest.mark.slow
@pytest.mark.parametrize("is_checked_out", [True, False])
def test_blobless_with_a_copy(clean: WorkDir, tmp_path: Path, *, is_checked_out: bool) -> None:
    """A copy of a state is named by the commits, whether the clone has the object or not."""
    clean.write("docs/export/all.json", CONTENT)
    clean.commit("copy")
    clean("git config uploadpack.allowFilter true")
    clone = ["git", "clone", "-q", "--filter=blob:none", *([] if is_checked_out else ["--sparse"])]
    clean([*clone, f"file://{clean.path}", str(tmp_path / "blobless")])
    blobless = WorkDir(tmp_path / "blobless", clean.env)
    blobless.write(FILE)
    before = blobless("git count-objects -v")
    for moment in ([], ["--history"]):
        said = blobless.guard(*moment)
        assert (said.code, "docs/export/all.json" in said.err) == (1, True), said
    blobless("git reset -q --soft HEAD^")
    assert blobless.guard("--staged", DIRECTORY).code == 1
    assert blobless("git count-objects -v") == before


def test_treeless(leaky: WorkDir, tmp_path: Path) -> None:
    """The trees of older commits are not here: that is not for the guard to download."""
    leaky("git rm -rq --cached src/defs")
    leaky.commit("cure", add=False)
    leaky("git config uploadpack.allowFilter true")
    filtered = ["git", "clone", "-q", "--filter=tree:0", f"file://{leaky.path}"]
    leaky([*filtered, str(tmp_path / "treeless")])
    treeless = WorkDir(tmp_path / "treeless", leaky.env)
    assert treeless.guard().code == 0
    before = treeless("git count-objects -v")
    said = cannot_tell(treeless, "--history")
    assert treeless("git count-objects -v") == before
    (fix,) = re.findall(r"lacks: (git fetch .*)$", said, re.MULTILINE)
    treeless([*fix.split(), "--quiet"])
    assert treeless.guard("--history").code == 1


def test_through_a_symlink(leaky: WorkDir, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(leaky.path)
    (tmp_path / "source").symlink_to(leaky.path / "src")
    finds_it(WorkDir(tmp_path / "link", leaky.env))
    finds_it(WorkDir(tmp_path / "source", leaky.env))
    assert leaky.guard("--staged", str(tmp_path / "source" / "defs")).code == 1


def test_path_with_odd_characters(tmp_path: Path) -> None:
    wd = WorkDir.make(tmp_path / os.fsdecode(b"a \n'b\" \xff:*"))
    fill(wd, leak=True)
    finds_it(wd)
    finds_it(wd.at("src"))


def test_replaced_commit(leaky: WorkDir) -> None:
    leak = leaky("git rev-parse HEAD")
    leaky("git rm -rq --cached src/defs")
    leaky.commit("cure", add=False)
    leaky(["git", "replace", leak, f"{leak}^"])
    assert leaky("git log --oneline -- src/defs").count("\n") == 0
    assert leaky.guard("--history").code == 1


def test_grafted_history(leaky: WorkDir) -> None:
    first = leaky("git rev-parse HEAD^")
    leaky("git rm -rq --cached src/defs")
    leaky.commit("cure", add=False)
    cure = leaky.head()
    leaky.write(".git/info/grafts", f"{cure} {first}\n")
    assert leaky.guard("--history").code == 1


def test_stash_that_keeps_ignored_files(clean: WorkDir) -> None:
    clean.write(FILE)
    clean("git stash --all")
    clean.write("src/code.py", "changed\n")
    clean("git stash")
    assert clean.guard().code == 0
    assert clean.guard("--history").code == 1
    clean("git stash drop stash@{1}")
    assert clean.guard("--history").code == 0


def test_truncated_index(leaky: WorkDir) -> None:
    index = leaky.path / ".git/index"
    whole = index.read_bytes()
    for size in (0, 4, 11, 12, 40, len(whole) // 2, len(whole) - 21, len(whole) - 1):
        index.write_bytes(whole[:size])
        assert "is damaged" in cannot_tell(leaky, "--staged")
        assert "is damaged" in cannot_tell(leaky)


def test_altered_index(clean: WorkDir) -> None:
    index = clean.path / ".git/index"
    whole = bytearray(index.read_bytes())
    whole[40] ^= 1
    index.write_bytes(whole)
    cannot_tell(clean, "--staged")
    cannot_tell(clean)


def test_index_that_is_a_directory(clean: WorkDir) -> None:
    (clean.path / ".git/index").unlink()
    (clean.path / ".git/index").mkdir()
    cannot_tell(clean, "--staged")
    cannot_tell(clean)


def test_head_that_leads_nowhere(clean: WorkDir) -> None:
    (clean.path / ".git/refs/heads/main").write_text("1" * 40 + "\n")
    cannot_tell(clean)
    cannot_tell(clean, "--history")


def test_head_that_cannot_be_read(clean: WorkDir) -> None:
    (clean.path / ".git/refs/heads/main").write_text("nonsense\n")
    cannot_tell(clean)
    cannot_tell(clean, "--history")


def test_missing_objects(leaky: WorkDir) -> None:
    shutil.rmtree(leaky.path / ".git/objects")
    (leaky.path / ".git/objects").mkdir()
    cannot_tell(leaky, "--history")


def test_git_directory_that_leads_nowhere(clean: WorkDir) -> None:
    shutil.rmtree(clean.path / ".git")
    (clean.path / ".git").write_text("gitdir: /nowhere/at/all\n")
    assert "/nowhere/at/all" in cannot_tell(clean)
    cannot_tell(clean, "--staged")


def test_unknown_extension(clean: WorkDir) -> None:
    clean("git config core.repositoryFormatVersion 1")
    clean("git config extensions.fromTheFuture true")
    cannot_tell(clean)


def test_no_repository(tmp_path: Path, wd: WorkDir) -> None:
    (tmp_path / "none").mkdir()
    nowhere = WorkDir(tmp_path / "none", {**wd.env, "GIT_CEILING_DIRECTORIES": str(tmp_path)})
    for moment in ([], ["--staged"], ["--history"]):
        assert "is not in a git repository" in cannot_tell(nowhere, *moment)


def test_git_is_missing(clean: WorkDir) -> None:
    no_path = {"PATH": "/nonexistent"}
    assert clean.guard("--staged", env=no_path).code == 0  # the index's own bytes say so
    assert "git was not found" in clean.guard(env=no_path).err
    assert clean.guard(env=no_path).code == 71
    clean.write(FILE)
    clean("git add -f -A")
    assert clean.guard("--staged", env=no_path).code == 71


def test_git_is_too_old(clean: WorkDir, tmp_path: Path) -> None:
    """Where git does not know an option of rev-parse, it repeats it and exits with 0."""
    old = tmp_path / "bin/git"
    old.parent.mkdir()
    forgets = 'set -- $(printf "%s\\n" "$@" | sed s/-object-format/-unknown/)'
    old.write_text(f'#!/bin/sh\n{forgets}\nexec {shutil.which("git")} "$@"\n')
    old.chmod(0o755)
    clean.env["PATH"] = f"{old.parent}:{clean.env['PATH']}"
    assert f"git is older than {OLDEST_GIT}: {old}." in cannot_tell(clean)


def test_another_owner(clean: WorkDir, tmp_path: Path) -> None:
    """As in a CI container, where root meets the checkout of somebody else."""
    owner = clean.env
    if os.geteuid() == 0:
        _give_away(clean.path)
        assert clean.guard("--staged").code == 71
    else:  # nobody else can give files away: let git believe it
        owner = {**clean.env, "PATH": f"{_believing(tmp_path)}:{clean.env['PATH']}"}
    said = clean.guard(env=owner)
    assert said.code == 71
    assert f"git config --global --add safe.directory {clean.path}" in said.err
    clean(["git", "config", "--global", "--add", "safe.directory", str(clean.path)])
    finds_nothing(clean)


def _believing(directory: Path) -> Path:
    """A git that believes that every repository is another user's."""
    git = directory / "git"
    real = shutil.which("git")
    git.write_text(f'#!/bin/sh\nGIT_TEST_ASSUME_DIFFERENT_OWNER=1 exec {real} "$@"\n')
    git.chmod(0o755)
    return directory


def _give_away(path: Path) -> None:
    for directory, names, files in os.walk(path):
        for name in (".", *names, *files):
            os.chown(Path(directory, name), 12345, 12345, follow_symlinks=False)


@pytest.mark.parametrize(
    "setting",
    [
        "[core]\n\tignorecase = true\n",
        "[core]\n\tIgnoreCase=yes\n",
        "[core]\n\tignorecase\n",
        "[include]\n\tpath = more\n",
        "[extensions]\n\tworktreeConfig = true\n",
    ],
)
def test_case_is_folded_where_the_file_system_folds_it(leaky: WorkDir, setting: str) -> None:
    with (leaky.path / ".git/config").open("a") as config:
        config.write(setting)
    for name in ("more", "config.worktree"):
        leaky.write(f".git/{name}", "[core]\n\tignoreCase = true\n")
    (leaky.path / "src/defs" / STATE.upper()).mkdir()
    leaky(["git", "mv", FILE, f"src/defs/{STATE.upper()}/state"])
    assert leaky.guard("--staged").code == 1
    assert leaky.guard().code == 1


@pytest.mark.slow
@pytest.mark.parametrize("path", [DIRECTORY, STATE, "var/state"])
def test_a_submodule_in_the_place_of_a_state_directory(
    clean: WorkDir, tmp_path: Path, path: str
) -> None:
    clean.write("pyproject.toml", '[[tool.state-bundler.source]]\npath = "var/state"\n')
    clean.commit()
    library = WorkDir.make(tmp_path / "library")
    library.write("Orders/state", CONTENT)
    library.commit()
    clean(["git", "clone", "-q", str(library.path), path])
    assert clean.guard().code == (0 if STATE in path else 1)  # only the name is ignored
    # No diff shows such a submodule unless it is asked to.
    text = f'[submodule "x"]\n\tpath = {path}\n\turl = {library.path}\n\tignore = all\n'
    clean.write(".gitmodules", text)
    clean(["git", "add", "-f", ".gitmodules", path])
    assert clean.guard("--staged").code == 1
    clean.commit("submodule", add=False)
    finds_it(clean)
    assert f"adds the state submodule {path}." in clean.guard("--push").err
    said = clean.guard()
    assert f"The state submodule {path} is in the index and in HEAD." in said.err
    (fix,) = re.findall(r"Fix: (git rm .*)$", said.err, re.MULTILINE)
    clean(["sh", "-c", fix])
    assert clean.guard("--staged").code == 0
