"""Messages name for installation exactly what is installed here, never only the name."""

from __future__ import annotations

import importlib.metadata
import json
import re
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import pytest
import yaml

from bundler.project.survey import survey
from bundler.setup.file_edits import apply
from bundler.setup.init import plan
from bundler.system.installed import installed
from bundler.version import __version__
from tests.support.environments import ROOT

_SHA = "ab" * 32
_GIT = {"vcs": "git", "requested_revision": "main", "commit_id": "0123abcd"}
_INDEX = "https://pkgs.example.com/simple"


class _Metadata:
    def __init__(self, direct: dict[str, Any] | None) -> None:
        self.direct = direct

    def read_text(self, name: str) -> str | None:
        assert name == "direct_url.json"
        return None if self.direct is None else json.dumps(self.direct)


def _installed_from(
    monkeypatch: pytest.MonkeyPatch, direct: dict[str, Any] | None, receipt: Path | None = None
) -> None:
    monkeypatch.setattr(importlib.metadata, "distribution", lambda _: _Metadata(direct))
    monkeypatch.setattr(sys, "prefix", str(receipt.parent) if receipt else "/nowhere")


CASES = {
    "commit": (
        {"url": "https://git.example.com/a/b.git", "vcs_info": _GIT},
        " @ git+https://git.example.com/a/b.git@0123abcd",
    ),
    "ssh": (
        {"url": "ssh://git@git.example.com/a/b", "vcs_info": _GIT},
        " @ git+ssh://git@git.example.com/a/b@0123abcd",
    ),
    "part of a repository": (
        {"url": "https://git.example.com/a/b", "vcs_info": _GIT, "subdirectory": "tools/ours"},
        " @ git+https://git.example.com/a/b@0123abcd#subdirectory=tools/ours",
    ),
    "with a token": (
        {"url": "https://user:ghp_abcdef@git.example.com/a/b", "vcs_info": _GIT},
        " @ git+https://git.example.com/a/b@0123abcd",
    ),
    "a clone on this machine": (
        {"url": "file:///srv/git/ours", "vcs_info": _GIT},
        " @ git+file:///srv/git/ours@0123abcd",
    ),
    "archive": (
        {"url": "https://example.com/o.whl", "archive_info": {"hashes": {"sha256": _SHA}}},
        f" @ https://example.com/o.whl#sha256={_SHA}",
    ),
    "archive of an older installer": (
        {"url": "https://example.com/o.whl", "archive_info": {"hash": f"sha256={_SHA}"}},
        f" @ https://example.com/o.whl#sha256={_SHA}",
    ),
    "archive without a hash": (
        {"url": "https://example.com/o.whl", "archive_info": {}},
        " @ https://example.com/o.whl",
    ),
    "file": ({"url": "file:///tmp/o.whl", "archive_info": {}}, None),
    "folder": ({"url": "file:///tmp/ours", "dir_info": {}}, None),
    "editable": ({"url": "file:///tmp/ours", "dir_info": {"editable": True}}, None),
    "index": (None, f"=={__version__}"),
}


@pytest.mark.parametrize("case", CASES)
def test_every_file_says_what_was_installed(
    case: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    direct, source = CASES[case]
    _installed_from(monkeypatch, direct)
    tmp_path.joinpath(".github").mkdir()
    tmp_path.joinpath(".git").mkdir()
    tmp_path.joinpath("pyproject.toml").write_text('[tool.dg.project]\nroot_module = "a"\n')
    apply(plan(survey(tmp_path)))
    entry = yaml.safe_load(tmp_path.joinpath(".pre-commit-config.yaml").read_text())
    (hook,) = entry["repos"][0]["hooks"]
    workflow = tmp_path.joinpath(".github/workflows/state-bundler.yml").read_text()
    installs = [line for line in workflow.splitlines() if "uv tool install" in line]
    assert installs
    assert installed().is_portable == (source is not None)
    if source is None:
        assert hook["language"] == "system"
        assert "additional_dependencies" not in hook
        assert all("${STATE_BUNDLER:?" in line for line in installs)
    else:
        assert hook["additional_dependencies"] == [f"state-bundler{source}"]
        assert all(f"state-bundler{source}" in line for line in installs)
    apply(plan(survey(tmp_path), remove=True))
    assert not tmp_path.joinpath(".pre-commit-config.yaml").exists()
    assert not tmp_path.joinpath(".github/workflows/state-bundler.yml").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (f'index = [{{ url = "{_INDEX}", default = false }}]', ("--index", _INDEX)),
        (f'index = [{{ url = "{_INDEX}", default = true }}]', ("--default-index", _INDEX)),
        (f'index-url = "{_INDEX}"', ("--default-index", _INDEX)),
        ('index = [{ url = "https://a:b@example.com/s" }]', ("--index", "https://example.com/s")),
        ("no-build = true", ()),
    ],
)
def test_the_index_that_uv_recorded_is_named(
    options: str, words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    receipt = tmp_path / "uv-receipt.toml"
    receipt.write_text(
        f'[tool]\nrequirements = [{{ name = "state-bundler" }}]\n[tool.options]\n{options}\n'
    )
    _installed_from(monkeypatch, None, receipt)
    assert installed().index == words
    assert installed().requirement("store") == f"state-bundler[store]=={__version__}"


def test_without_metadata_it_is_a_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", missing)
    assert installed().source == f" @ {ROOT.as_uri()}"
    assert not installed().is_portable


# A command, an entry of a list of requirements, or a hint, with the name and nothing else.
_BY_NAME = re.compile(
    r"""(?x)
    (?:uvx|uv\ tool\ (?:install|run)|pipx?\ (?:install|run))\ (?:-\S+\ )*['"]?state-bundler
        (?:\[[\w,]+\])?(?:==[\w.]+|@[\w.]+)?['"]?(?:\s|$|`)
    | --from\ ['"]?state-bundler\b
    | \[[^\]\n]*"state-bundler(?:\[[\w,]+\])?(?:==[\w.]+)?"
    """
)


def test_nothing_here_installs_the_name_alone() -> None:
    """Anyone who registers the name would get the secrets of a build."""
    folders = ("bundler", "docs", "examples", "hooks", "templates")
    files = [path for folder in folders for path in ROOT.joinpath(folder).rglob("*.*")]
    files += [ROOT / "README.md", ROOT / "action.yml"]
    texts = {
        path: path.read_text(encoding="utf-8")
        for path in files
        if path.suffix in (".py", ".md", ".yml", ".yaml", ".toml")
    }
    assert len(texts) > 100
    found = [(path, hit[0]) for path, text in texts.items() for hit in _BY_NAME.finditer(text)]
    assert found == []
    assert _BY_NAME.search('requires = ["hatchling", "state-bundler"]')
    assert _BY_NAME.search("run: uvx state-bundler@0.1.0 guard")
    assert _BY_NAME.search("hint: pip install 'state-bundler[store]'")
