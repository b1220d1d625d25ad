"""State under another name: found by content, where the content says something."""

from __future__ import annotations

import hashlib

import pytest

from bundler import git
from bundler.guard import content as guard_content
from tests.support.workdir import CONTENT, STATE, WorkDir

DEFS = "src/shop/defs"
LINES = "".join(f"row {number},{number * number}\n" for number in range(20))


@pytest.fixture
def project(wd: WorkDir) -> WorkDir:
    """A Dagster project with a protected state that has been refreshed."""
    wd.write("pyproject.toml", '[tool.dg.project]\nroot_module = "shop"\n')
    wd.write(f"{DEFS}/__init__.py", "")
    wd.write(".gitignore", f"{STATE}/\n")
    wd.commit("code")
    wd.write(f"{DEFS}/{STATE}/Orders/state", LINES)
    return wd


def pointer(content: bytes) -> bytes:
    digest = hashlib.sha256(content).hexdigest()
    return (
        f"version https://git-lfs.github.com/spec/v1\noid sha256:{digest}\nsize {len(content)}\n"
    ).encode()


def found(wd: WorkDir) -> bool:
    """Whether the copy is found, at every moment alike."""
    staged, now = wd.guard("--staged"), wd.guard()
    wd("git commit -q -m copy")
    pushed, history = wd.guard("--push"), wd.guard("--history")
    codes = {staged.code, now.code, pushed.code, history.code}
    assert len(codes) == 1, (staged, now, pushed, history)
    for said in (staged, now, pushed, history):
        assert all("is a copy" in line for line in said.errors)
    return codes == {1}


@pytest.mark.parametrize(
    ("name", "content", "how"),
    [
        ("copy.csv", LINES.encode(), "a copy of"),
        ("deep/er/copy", LINES.replace("\n", "\r\n").encode(), "with other line endings"),
        ("copy.lfs", pointer(LINES.encode()), "as a Git LFS pointer"),
        ("copy.lfs", pointer(LINES.replace("\n", "\r\n").encode()), "as a Git LFS pointer"),
    ],
)
def test_copies(project: WorkDir, name: str, content: bytes, how: str) -> None:
    project.write(name, content)
    project("git add -A")
    assert how in project.guard("--staged").errors[0]
    assert found(project)


MANY = LINES * 1000


@pytest.mark.parametrize(
    "content",
    [MANY.encode(), MANY.replace("\n", "\r\n").encode(), pointer(MANY.encode())],
    ids=["same", "other line ends", "pointer"],
)
def test_copies_of_a_state_that_is_large_for_its_repository(
    project: WorkDir, content: bytes
) -> None:
    project.write(f"{DEFS}/{STATE}/Orders/state", MANY)
    project.write("deep/er/copy", content)
    project("git add -A")
    assert found(project)


def test_a_large_state_is_not_hashed_without_a_copy_of_its_size(
    project: WorkDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.write(f"{DEFS}/{STATE}/Orders/state", MANY)
    repository = git.open_repository(project.path)
    assert repository is not None
    monkeypatch.setattr(guard_content, "_digests", None)
    assert guard_content.copied_in_index(repository, [f"{DEFS}/{STATE}".encode()]) == []


def test_state_with_carriage_returns(project: WorkDir) -> None:
    project.write(f"{DEFS}/{STATE}/Orders/state", LINES.replace("\n", "\r\n"))
    project.write("copy", LINES)
    project("git add -A")
    assert found(project)


def test_carriage_returns_across_the_reader_s_steps(project: WorkDir) -> None:
    content = ("x" * 1023 + "\r\n") * 700
    project.write(f"{DEFS}/{STATE}/Orders/state", content)
    project.write("copy", content.replace("\r\n", "\n"))
    project("git add -A")
    assert found(project)


@pytest.mark.parametrize("content", ["", "{}", "[]\n", "null", " " * 5000, '{"a": []}\n\n\n'])
def test_contents_that_say_nothing(project: WorkDir, content: str) -> None:
    project.write(f"{DEFS}/{STATE}/Orders/state", content)
    project.write("same", content)
    project("git add -A")
    assert not found(project)


def test_an_altered_copy_is_another_file(project: WorkDir) -> None:
    project.write("altered", LINES + "one more\n")
    project("git add -A")
    assert not found(project)


def test_in_a_repository_of_sha256(tmp_path_factory: pytest.TempPathFactory) -> None:
    wd = WorkDir.make(tmp_path_factory.mktemp("x") / "r", options=["--object-format=sha256"])
    wd.write("pyproject.toml", '[tool.dg.project]\nroot_module = "shop"\n')
    wd.write(f"{DEFS}/__init__.py", "")
    wd.write(f"{DEFS}/{STATE}/Orders/state", LINES)
    wd.write(f"{DEFS}/{STATE}/.gitignore", "*\n")
    wd.write("copy", LINES)
    wd("git add -A")
    assert found(wd)


def test_before_the_first_commit(wd: WorkDir) -> None:
    wd.write("pyproject.toml", '[tool.dg.project]\nroot_module = "shop"\n')
    wd.write(f"{DEFS}/{STATE}/Orders/state", LINES)
    wd.write(f"{DEFS}/{STATE}/.gitignore", "*\n")
    wd.write("copy", LINES)
    wd("git add -A")
    assert wd.guard("--staged").code == 1


def test_dbt_copies_the_project_into_its_state(project: WorkDir) -> None:
    model = "select * from orders where amount > 10\n"
    project.write(f"{DEFS}/{STATE}/Dbt/state", "")
    project.write(f"{DEFS}/{STATE}/Dbt/project/models/orders.sql", model)
    project.write(f"{DEFS}/{STATE}/Dbt/project/target/manifest.json", CONTENT)
    project.write("dbt/models/orders.sql", model)
    project("git add -A")
    assert project.guard("--staged").code == 0
    assert project.guard().code == 0
    project.write("fixture.json", CONTENT)
    project("git add -A")
    assert found(project)


def test_a_copy_that_is_allowed(project: WorkDir) -> None:
    project.write("tests/sample.csv", LINES)
    project("git add -A")
    assert project.guard("--staged", "--allow", "tests").code == 0
    assert project.guard("--staged", "--allow", "other").code == 1


def test_the_manifest_of_the_states_is_not_a_state(project: WorkDir) -> None:
    project.write(f"{DEFS}/{STATE}/@manifest.json", CONTENT)
    project.write("copy.json", CONTENT)
    project("git add -A")
    assert project.guard("--staged").code == 0


@pytest.mark.parametrize("tag", ["tag kept", "tag -a -m x kept"])
@pytest.mark.parametrize("is_tree", [True, False], ids=["tree", "blob"])
def test_a_tag_of_a_copy(project: WorkDir, tag: str, is_tree: bool) -> None:
    project.write("copy.csv", LINES)
    oid = project("git hash-object -w copy.csv")
    if is_tree:
        project("git add copy.csv")
        oid = project("git write-tree")
        project("git reset -q --hard")
    assert project.guard("--history").code == 0
    project(["git", *tag.split(), oid])
    name = project("git rev-parse kept")
    line = f"refs/tags/kept {name} refs/tags/kept {'0' * 40}\n".encode()
    for said in (project.guard("--history"), project.guard("--push", stdin=line)):
        assert said.code == 1
        assert "is a copy of" in said.errors[0]
