"""The copy of a project that a build backend is tried on: what it has, and what it never has."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bundler.errors import ToolFailed
from bundler.project.survey import survey
from bundler.setup.doctor import probe_copy
from bundler.setup.doctor.probe_copy import ProjectCopy, copy_project
from tests.support.workdir import WorkDir

_PYPROJECT = """\
[build-system]
build-backend = "hatchling.build"
[[tool.state-bundler.source]]
key = "A"
command = ["true"]
path = "src/shop/state"
"""


def _write(top: Path, *paths: str) -> None:
    for path in paths:
        (top / path).parent.mkdir(parents=True, exist_ok=True)
        (top / path).write_text(f"content of {path}")


def _project(root: Path, *paths: str, text: str = _PYPROJECT) -> Path:
    _write(root, "src/shop/__init__.py", "pyproject.toml", *paths)
    (root / "pyproject.toml").write_text(text)
    return root


def _copied(root: Path, into: Path) -> ProjectCopy:
    return copy_project(survey(root), into / "copy")


def _paths(copy: ProjectCopy) -> set[str]:
    return {path.relative_to(copy.root).as_posix() for path in copy.root.rglob("*")}


@pytest.mark.slow
def test_a_project_is_copied_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = _project(tmp_path / "shop", *(f"data/{number}.csv" for number in range(600)))
    assert len(list((_copied(root, tmp_path).root / "data").iterdir())) == 600
    for limit in ("_MOST_PATHS", "_MOST_BYTES_TOGETHER"):
        with monkeypatch.context() as patched:
            patched.setattr(probe_copy, limit, 500)
            with pytest.raises(ToolFailed, match="too many files"):
                _copied(root, tmp_path / limit)


def test_links_lead_to_the_copies_of_what_they_lead_to(tmp_path: Path) -> None:
    root = _project(tmp_path / "repo/shop", "src/shop/state/A/state")
    _write(tmp_path / "repo", "shared/deep/x.py", "README.md")
    _write(tmp_path, "outside/secret.txt")
    links = {
        "app": "src/shop",
        "absolute": root / "src/shop/__init__.py",
        "shared": "../shared/deep",
        "README.md": "../README.md",
        "up": "..",
        "itself": "itself",
        "notes.txt": tmp_path / "outside/secret.txt",
        "elsewhere": tmp_path / "outside",
        "nowhere": "missing",
    }
    for name, to in links.items():
        (root / name).symlink_to(to)
    (tmp_path / "repo/.hg").mkdir()
    copy = _copied(root, tmp_path)
    place = copy.root
    assert (place / "src/shop/__init__.py").read_text() == "content of src/shop/__init__.py"
    assert os.readlink(place / "app") == "src/shop"
    assert os.readlink(place / "absolute") == "src/shop/__init__.py"
    assert (place / "shared/x.py").read_text() == "content of shared/deep/x.py"
    assert (place / "README.md").read_text() == "content of README.md"
    assert (place / "notes.txt").read_text() == ""
    assert not any(os.path.lexists(place / name) for name in ("itself", "elsewhere", "nowhere"))
    assert "content of src" not in (place / "app/state/A/state").read_text()
    for path in copy.top.rglob("*"):
        assert Path(os.path.realpath(path)).is_relative_to(copy.top)


def test_a_package_behind_a_link_out_of_the_repository_is_not_judged(tmp_path: Path) -> None:
    root = _project(tmp_path / "shop")
    (root / "src/shop").rename(tmp_path / "elsewhere")
    (root / "src/shop").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ToolFailed, match="A link leads"):
        _copied(root, tmp_path)


_KEY = '{"private_key": "' + 600 * "x" + '"}'


def test_no_credentials_are_copied(tmp_path: Path) -> None:
    secret = (
        *(".aws/credentials", ".kube/config", ".docker/config.json", ".cargo/credentials.toml"),
        *(".streamlit/secrets.toml", ".envs/.production", ".env", "conf/my-project-123.json"),
    )
    root = _project(tmp_path / "shop", *secret, "conf/usual.json")
    (root / "conf/my-project-123.json").write_text(_KEY)
    (root / "innocent.txt").symlink_to(".aws/credentials")
    paths = _paths(_copied(root, tmp_path))
    assert not paths.intersection(secret)
    assert "conf/usual.json" in paths
    assert (tmp_path / "copy/innocent.txt").read_text() == ""


@pytest.mark.parametrize(
    ("text", "is_copied"),
    [
        ('[project]\nreadme = "../docs/README.md"\n', True),
        ('[tool.hatch.version]\npath = "../docs/README.md"\n', True),
        ('[tool.hatch.build.force-include]\n"../docs" = "docs"\n', True),
        ('[project]\nreadme = "../../outside/README.md"\n', True),
        ('[tool.hatch.build.force-include]\n"../../outside" = "docs"\n', False),
        ('[tool.hatch.build]\nfiles = ["../", "../..", "../../../../../../dev/zero"]\n', False),
        ('[tool.pytest.ini_options]\npythonpath = ["../docs"]\n', False),
    ],
)  # fmt: skip
def test_what_a_build_reads_above_the_project_is_copied(
    text: str, is_copied: bool, tmp_path: Path
) -> None:
    root = _project(tmp_path / "repo/shop", text=_PYPROJECT + text)
    _write(tmp_path, "repo/docs/README.md", "repo/other/x", "outside/README.md")
    (tmp_path / "repo/.hg").mkdir()
    copy = _copied(root, tmp_path)
    found = [path for path in copy.top.rglob("*") if path.is_file()]
    assert any(path.name == "README.md" for path in found) == is_copied
    assert not any(path.name == "x" for path in found)


def test_mercurial_inside_git(wd: WorkDir) -> None:
    root = _project(wd.path / "code/shop")
    (wd.path / "code/.hg").mkdir()
    wd("git add .")
    copy = _copied(root, wd.path.parent / "into")
    assert copy.root == copy.top / "code/shop"
    assert (copy.top / ".git").is_dir()


def test_a_copy_is_tagged_whatever_git_is_configured_to_sign(wd: WorkDir) -> None:
    root = _project(wd.path)
    wd("git add .")
    wd("git commit --quiet --message=Start")
    wd("git tag v1")
    for name in ("commit.gpgsign", "tag.gpgsign", "tag.forceSignAnnotated"):
        wd(f"git config --global {name} true")
    wd("git config --global gpg.program false")
    copy = _copied(root, wd.path.parent / "into")
    assert WorkDir(copy.top, wd.env)("git tag").strip() == "v1"


@pytest.mark.parametrize("name", ["shop", "dist"])
def test_an_environment_in_the_projects_own_folder(name: str, tmp_path: Path) -> None:
    environment = ("pyvenv.cfg", "bin/python", "lib/python3/site-packages/x.py")
    packages = ("src/shop/dist/__init__.py", "src/shop/build/lib/__init__.py")
    built = ("dist/shop.whl", "build/lib/shop/__init__.py")
    root = _project(tmp_path / name, *environment, *packages, *built)
    paths = _paths(_copied(root, tmp_path))
    assert paths.issuperset({"src/shop/__init__.py", "pyproject.toml", *packages})
    assert not paths.intersection({*environment[1:], *built})


def test_the_rule_names_the_state_from_the_folder_of_the_ignore_file(tmp_path: Path) -> None:
    top = WorkDir.make(tmp_path / "repo")
    root = _project(top.path / "services/shop")
    top.write(".gitignore", "*.log\n")
    copy, states = _copied(root, tmp_path), survey(root).state_directories
    assert not copy.ignores(states)
    copy.ignore(states)
    assert copy.ignores(states)
    assert "/services/shop/src/shop/state" in (copy.top / ".gitignore").read_text()
    (copy.top / ".gitignore").write_text("services/shop/src/shop/state/\n")
    assert copy.ignores(states)
