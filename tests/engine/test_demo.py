"""The demonstration is run once, whole, as a user would, and compared with the documentation."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import pytest

from bundler.cli.commands import cli
from bundler.errors import UsageError
from bundler.git.committing import commit_all
from bundler.setup.demo.project import environment_of, install, prepare_folder
from tests.support.engine import Engine, make_python_base
from tests.support.environments import ROOT

pytestmark = pytest.mark.engine

BIN = Path(sys.executable).parent
README = (ROOT / "README.md").read_text()
PAGE = (ROOT / "docs/tutorial/demo.md").read_text()
# What differs from run to run -> what stands for it.
_VARIES = (
    # What a slow machine announces.
    (r"(?m)^(?:Verifying|Reading|Comparing|Checking|Loading|Finding)\b.* …\n", ""),
    (r"(?m)^  .* so far\n", ""),
    (r"127\.0\.0\.1:\d+", "127.0.0.1:PORT"),
    (r"PYTHON=\S+", "PYTHON=BASE"),
    (r"sha256:[0-9a-f]{64}", "DIGEST"),
    (r"\b[0-9a-f]{12}\b", "DIGEST"),
    (r"\b\d+(\.\d+)? ?([KMGT]iB|B|s|m|h|d)\b", "N"),
    (r"[ \t]+", " "),
)


@dataclass(frozen=True)
class Demo:
    """folder: what it made. code: its exit code. said: stdout and stderr as they came."""

    folder: Path
    code: int
    said: str


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory, engine: Engine) -> Iterator[Demo]:
    home = tmp_path_factory.mktemp("you")
    environment = {
        **environment_of(os.environ),
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        # Traps: what a user may have set must not lead the demo away from its own project.
        "UV_PROJECT_ENVIRONMENT": "/nowhere",
        "SHOP_API_TOKEN": "of-another",
        "GIT_DIR": "/nowhere",
        "DOCKER_HOST": engine.host,
        "DOCKER_CONFIG": engine.environment["DOCKER_CONFIG"],
        "STATE_BUNDLER_DEMO_BASE": make_python_base(engine),
    }
    done = subprocess.run(
        [BIN / "state-bundler", "demo"],
        cwd=home,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    yield Demo(home / "state-bundler-demo", done.returncode, done.stdout)
    engine.docker("image", "rm", "state-bundler-demo:1", check=False)


def _transcript() -> str:
    """What the documentation says that the demo prints."""
    found = re.search(r"```console\n\$ state-bundler demo\n(.*?)```", PAGE, re.DOTALL)
    assert found
    return found.group(1)


def _excerpts() -> list[str]:
    """What the README shows of it."""
    part = README.partition("<!-- excerpts")[2].partition("<!-- end of the excerpts")[0]
    return re.findall(r"```console\n(.*?)```", part, re.DOTALL)


def _uniform(text: str) -> str:
    for pattern, instead in _VARIES:
        text = re.sub(pattern, instead, text)
    return text


def _first_difference(transcript: str, said: str) -> str:
    """Where what was said departs from the transcript; a line ``…`` there is any lines."""
    actual = said.splitlines()
    at, anywhere = 0, False
    for line in transcript.splitlines():
        if line == "…":
            anywhere = True
            continue
        here = actual.index(line, at) if anywhere and line in actual[at:] else at
        if here >= len(actual) or actual[here] != line:
            return f"expected: {line!r}\nsaid: {actual[at : at + 5]}"
        at, anywhere = here + 1, False
    return "" if at == len(actual) else f"said at the end, too: {actual[at:]}"


# --- the run ----------------------------------------------------------------------------------


def test_it_ends_without_a_traceback(demo: Demo) -> None:
    assert demo.code == 0, demo.said
    assert "Traceback" not in demo.said


def test_it_prints_what_the_documentation_says(demo: Demo) -> None:
    said = demo.said.replace(str(demo.folder), "/home/you/state-bundler-demo")
    assert _first_difference(_uniform(_transcript()), _uniform(said)) == ""


@pytest.mark.parametrize("excerpt", _excerpts(), ids=["an outage", "a status"])
def test_the_readme_shows_what_it_prints(demo: Demo, excerpt: str) -> None:
    said = iter(_uniform(demo.said).splitlines())
    for line in _uniform(excerpt).splitlines():
        assert line == "…" or line in said, line


def test_both_artifacts_verify_afterwards(demo: Demo) -> None:
    arguments = ["verify", "build/shop.pex", "oci:build/state-image"]
    subprocess.run(
        [sys.executable, "-m", "bundler", *arguments],
        cwd=demo.folder,
        check=True,
        capture_output=True,
    )


def test_no_token_is_in_its_output(demo: Demo) -> None:
    (line,) = re.findall("SHOP_API_TOKEN=(.*)", (demo.folder / ".env").read_text())
    assert line not in demo.said


def test_it_can_begin_again_in_the_same_folder(demo: Demo) -> None:
    (demo.folder / "README.md").write_text("changed by the user\n")
    prepare_folder(demo.folder)
    assert not (demo.folder / "build").exists()
    assert install(demo.folder) is False
    commit_all(demo.folder, "The shop")
    git = ["git", "-C", demo.folder]
    status = subprocess.run([*git, "status", "--porcelain"], capture_output=True, check=True)
    assert status.stdout == b""
    commits = subprocess.run([*git, "rev-list", "--count", "HEAD"], capture_output=True, check=True)
    assert commits.stdout == b"2\n"


# --- the folder -------------------------------------------------------------------------------


def test_a_folder_with_something_else_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(UsageError, match="is not empty and is not the sample project"):
        prepare_folder(tmp_path)
    assert os.listdir(tmp_path) == ["thesis.txt"]


# --- the documentation --------------------------------------------------------------------------


def test_the_index_lists_every_command() -> None:
    index = (ROOT / "docs/README.md").read_text()
    listed = re.findall(r"^\| `(\w+)` \|", index, re.MULTILINE)
    assert listed == [name for name in cli.list_commands(click.Context(cli)) if name in listed]
    assert set(listed) == set(cli.list_commands(click.Context(cli)))


def test_the_documented_pre_commit_entry_is_the_one_that_init_writes() -> None:
    from bundler.setup.init.precommit import entry

    commit = "state-bundler @ git+https://<host>/<repository>@<commit>"

    page = (ROOT / "docs/how-to/pre-commit.md").read_text()
    assert f"```yaml\nrepos:\n{entry('  ', commit)}```" in page
