"""What surrounds a release is valid: the workflows, the changelog's check, pre-commit's file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.environments import ROOT
from tests.support.release_check import NotReady, check_changelog

BIN = Path(sys.executable).parent


def test_the_workflows_are_valid() -> None:
    paths = sorted((ROOT / ".github/workflows").glob("*.yml"))
    argv = [BIN / "check-jsonschema", "--builtin-schema", "vendor.github-workflows", *paths]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_pre_commits_file_is_valid() -> None:
    argv = [BIN / "pre-commit", "validate-config", ROOT / ".pre-commit-config.yaml"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_changelog_is_ready_for_the_next_version() -> None:
    check_changelog((ROOT / "CHANGELOG.md").read_text(), "0.1.0", is_tagged=False)


@pytest.mark.parametrize(
    "text",
    [
        "## Unreleased\n\n- New.\n",
        "## 1.2.0\n\n- New.\n",
        "## 1.2.0 (2026-11-29)\n\n## 1.1.0\n\n- Old.\n",
    ],
)
def test_a_tag_without_a_dated_section_is_refused(text: str) -> None:
    with pytest.raises(NotReady, match="no section"):
        check_changelog(text, "1.2.0", is_tagged=True)


def test_a_tag_with_its_section_is_taken() -> None:
    check_changelog("## 1.2.0 (2026-11-29)\n\n- New.\n\n## 1.1.0\n", "1.2.0", is_tagged=True)
