"""More commands that messages tell the user to run, pasted from real output."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import pytest

from bundler.errors import VerificationFailed
from bundler.workflows.wheel_hook import published
from tests.campaigns.fault_campaign import STATES, configure
from tests.support.pex_projects import run_pex
from tests.support.workdir import WorkDir
from tests.unit.cli.test_printed_commands import BIN, index, paste, printed, said, shop, store

__all__ = ["index", "shop", "store"]  # fixtures


@pytest.mark.slow
def test_a_signature_that_is_missing(shop: WorkDir, tmp_path: Path) -> None:
    said(shop, "refresh", code=0)
    key = tmp_path / "a key"
    shop(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)])
    (tmp_path / "allowed").write_text(f"me@example.org {key.with_suffix('.pub').read_text()}")
    for more in ([], ["--signature", str(tmp_path / "it's.sig")]):
        words = ["verify", STATES, "--signed-by", str(tmp_path / "allowed"), *more]
        command = printed(said(shop, *words, code=1))
        paste(shop, command.replace("KEY", shlex.quote(str(key))))
        said(shop, *words, code=0)


@pytest.mark.slow
def test_a_file_that_is_not_a_plan(shop: WorkDir) -> None:
    words = ["build", "oci", "--no-guard", "-o", "layout", "--plan", "plan.bin"]
    shop.write("plan.bin", "no plan")
    command = printed(said(shop, *words, code=76))
    (shop.path / "plan.bin").unlink()
    assert shop.run(["sh", "-c", command]).returncode == 1  # there are changes
    said(shop, *words, code=0)


_VERSIONED = """\
from bundler.component import DefsStateConfig, DefsStateManagementType, StateBackedComponent

class Far(StateBackedComponent):
    defs_state_config = DefsStateConfig(
        "far", DefsStateManagementType.VERSIONED_STATE_STORAGE
    )

    def write_state_to_path(self, state_path):
        state_path.write_text("far")

    def build_defs_from_state(self, context, state_path):
        pass
"""


@pytest.mark.slow
def test_a_store_without_a_version(wd: WorkDir, tmp_path: Path) -> None:
    wd.write(
        "pyproject.toml",
        '[project]\nname = "shop"\nversion = "1"\n'
        f'[tool.state-bundler]\nstore = "file://{tmp_path}/a%20store"\n'
        '[[tool.state-bundler.source]]\ncomponent = "shop:Far"\npath = "state"\n',
    )
    wd.write("src/shop.py", _VERSIONED)
    wd.env |= {"PYTHONPATH": str(Path(__file__).parents[3]), "VIRTUAL_ENV": str(BIN.parent)}
    words = ["build", "oci", "--no-guard", "-o", "layout", "--embed-versioned"]
    paste(wd, printed(said(wd, *words, code=2)))
    said(wd, *words, code=0)


@pytest.mark.slow
def test_a_plan_that_is_stale(shop: WorkDir, tmp_path: Path) -> None:
    words = ["build", "oci", "--no-guard", "-o", "layout", "--plan", "plan.bin"]
    said(shop, "plan", "--out", "plan.bin", code=1)
    (tmp_path / "inputs/a/state").write_text("another")
    said(shop, "refresh", code=0)
    command = printed(said(shop, *words, code=76))
    shop.run(["sh", "-c", command])
    said(shop, *words, code=0)


@pytest.mark.slow
def test_an_altered_state_in_doctor(shop: WorkDir) -> None:
    said(shop, "refresh", code=0)
    (shop.path / STATES / "a/state").write_text("altered")
    text = said(shop, "doctor", code=1)
    (command,) = re.findall(r"(?m)state-bundler refresh.*?$", text)
    paste(shop, command)
    done = shop.run([BIN / "state-bundler", "doctor"])
    assert b"does not match its manifest" not in done.stdout + done.stderr


@pytest.mark.slow
def test_a_publish_that_was_interrupted(shop: WorkDir) -> None:
    said(shop, "refresh", code=0)
    staging = shop.path / STATES / "@staging"
    staging.mkdir(exist_ok=True)
    (staging / "journal.json").write_text('{"states":{},"removed":[],"files":[]}')
    command = printed(said(shop, "status", code=76))
    paste(shop, command)
    said(shop, "status", code=0)


@pytest.mark.slow
def test_an_environment_without_the_project(wd: WorkDir, index: str) -> None:
    wd.write(
        "pyproject.toml",
        '[project]\nname = "shop"\nversion = "1"\nrequires-python = ">=3.10"\n'
        'dependencies = ["dagster"]\n[tool.uv]\npackage = false\n'
        '[tool.dg.project]\nroot_module = "shop"\n',
    )
    wd([sys.executable, "-m", "venv", "--without-pip", ".venv"])
    wd.env["UV_DEFAULT_INDEX"] = index
    for words, code in ((["doctor"], 1), (["refresh"], 78)):
        text = " ".join(said(wd, *words, code=code).split())
        (command,) = set(re.findall(r"nstall the project \(([^)]*)\)", text))
        (start,) = set(re.findall(r"run this with (uv run),", text))
    paste(wd, command)
    assert list((wd.path / ".venv").glob("lib/*/site-packages/dagster-1.12.0.dist-info"))
    again = wd.run(["sh", "-c", f"{start} state-bundler doctor"])
    assert b"with dagster 1.12.0" in again.stdout


def test_a_pre_commit_configuration_that_is_not_understood(wd: WorkDir) -> None:
    wd.write("pyproject.toml", '[project]\nname = "shop"\nversion = "1"\n')
    wd.write(".pre-commit-config.yaml", "repos: [\n")
    command = printed(said(wd, "init", "--yes", code=78))
    paste(wd, f"{command} --yes")


def test_a_pre_commit_configuration_of_old(wd: WorkDir) -> None:
    wd.write("pyproject.toml", '[project]\nname = "shop"\nversion = "1"\n')
    old = "- repo: local\n  hooks:\n  - {id: a, name: a, entry: a, language: system}\n"
    wd.write(".pre-commit-config.yaml", old)
    paste(wd, printed(said(wd, "init", "--yes", code=78)))
    said(wd, "init", "--yes", code=0)
    assert "no-committed-state" in (wd.path / ".pre-commit-config.yaml").read_text()


@pytest.mark.slow
def test_a_directory_without_a_project(wd: WorkDir) -> None:
    assert "init" not in said(wd, "doctor", code=1)
    wd.write("pyproject.toml", '[project]\nname = "shop"\nversion = "1"\n')
    text = " ".join(said(wd, "doctor", code=1).split())
    (command,) = re.findall(r"`(state-bundler init)` adds an example", text)
    paste(wd, f"{command} --yes")
    assert "[[tool.state-bundler.source]]" in (wd.path / "pyproject.toml").read_text()


def test_a_tag_of_a_tree_with_state(wd: WorkDir) -> None:
    wd.write(".gitignore", ".local_defs_state/\n")
    wd.commit("code")
    wd.write("defs/.local_defs_state/K/state", '{"rows": [1, 2, 3, 4, 5, 6, 7, 8]}')
    wd("git add -f defs")
    tree = wd("git write-tree").strip()
    wd(["git", "tag", "wrong", tree])
    zeros = "0" * 40
    line = f"refs/tags/wrong {tree} refs/tags/wrong {zeros}\n"
    done = wd.run([BIN / "state-guard", "--push"], stdin=line.encode())
    assert done.returncode == 1, done
    (command,) = re.findall(r"git update-ref -d REF", done.stderr.decode())
    paste(wd, command.replace("REF", "refs/tags/wrong"))
    assert wd("git tag").split() == []


@pytest.mark.slow
def test_a_load_without_its_state(shop: WorkDir) -> None:
    program = (
        "import sys; from pathlib import Path\n"
        "from bundler.component import DefsStateConfig, Load, StateBackedComponent\n"
        "class A(StateBackedComponent):\n"
        "    defs_state_config = DefsStateConfig('a')\n"
        "    def write_state_to_path(self, state_path): pass\n"
        "    def build_defs_from_state(self, context, state_path): return state_path.read_text()\n"
        f"print(Load(Path('{STATES}')).build_defs(A()))\n"
    )
    failed = shop.run([sys.executable, "-c", program]).stderr.decode()
    (command,) = set(re.findall(r"Run `([^`]*)`", failed))
    paste(shop, command)
    assert shop([sys.executable, "-c", program]).strip() == "some"


@pytest.mark.slow
def test_a_key_without_a_component(shop: WorkDir, tmp_path: Path) -> None:
    said(shop, "refresh", code=0)
    configure(shop.path, tmp_path / "inputs", ["a"])
    text = said(shop, "doctor", code=0)
    (command,) = set(re.findall(r"state-bundler refresh", text))
    paste(shop, command)
    assert "state-bundler refresh" not in said(shop, "doctor", code=0)


@pytest.mark.slow
def test_a_wheel_of_an_altered_state(shop: WorkDir) -> None:
    said(shop, "refresh", code=0)
    (shop.path / STATES / "a/state").write_text("altered")
    with pytest.raises(VerificationFailed) as caught:
        published(shop.path)
    paste(shop, printed(caught.value.hint))
    assert published(shop.path).missing == ()


@pytest.mark.slow
def test_a_pex_that_is_embedded_into(shop: WorkDir, tmp_path: Path) -> None:
    shop.write("src/shop/__init__.py")
    run_pex("-D", "src", "-o", "an app.pex", cwd=shop.path, root=tmp_path / "root")
    command = printed(said(shop, "embed", "an app.pex", "--tag", "x:1", code=2))
    paste(shop, f"{command} --no-guard")
    said(shop, "verify", "an app.pex", code=0)
