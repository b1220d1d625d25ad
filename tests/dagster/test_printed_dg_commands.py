"""The `dg` commands that messages tell the user to run, pasted from real output."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from bundler.errors import Unavailable
from bundler.listener import SILENT
from bundler.project.projects import open_project
from bundler.refresh import discovery
from bundler.refresh.run import discover
from tests.support.environments import python_of
from tests.support.sample import Sample

_DEFS = "src/shop/defs/broken/defs.yaml"


def _ours(sample: Sample, *words: str) -> str:
    done = sample.run(sys.executable, "-m", "bundler", *words, check=False)
    return done.stdout + done.stderr


def _dg(sample: Sample, command: str) -> subprocess.CompletedProcess[str]:
    """With `dg` on PATH, as in an activated environment of the project."""
    assert command.startswith("dg ")
    path = f"{sample.python.parent}:{python_of('dagster').parent}:/usr/bin:/bin"
    return sample.run("sh", "-c", f"PATH={path} {command}", check=False)


def test_components_that_cannot_be_loaded(sample: Sample) -> None:
    broken = sample.root / _DEFS
    broken.parent.mkdir()
    broken.write_text("type: shop.nowhere.Thing\n")
    (fix,) = re.findall(r"For the full error, run: (.*)", _ours(sample, "refresh"))
    done = _dg(sample, fix)
    assert done.returncode
    assert "shop.nowhere" in done.stdout + done.stderr


def test_a_project_that_takes_long_to_load(sample: Sample, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discovery, "_LOAD_SECONDS", 0.01)
    with pytest.raises(Unavailable) as caught:
        discover([open_project(sample.root)], SILENT)
    (fix,) = re.findall(r"`(dg .*)`", caught.value.hint)
    assert "shop.components" in _dg(sample, fix).stdout


def test_components_that_are_fetched_in_development(sample: Sample) -> None:
    found = re.findall(r"`(dg [^`]*)`", _ours(sample, "doctor"))
    assert sorted(set(found)) == ["dg check defs", "dg list defs"]
    for command in set(found):
        done = _dg(sample, command)
        assert "Usage" not in done.stdout + done.stderr
