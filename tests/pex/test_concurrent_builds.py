"""Builds at the same time in one checkout, and builds from a checkout that nobody may write to."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.campaigns.fault_campaign import STATES

BIN = Path(sys.executable).parent
ROUNDS = 4


def bundler(root: Path, *arguments: str | Path, prefix: tuple[str, ...] = ()) -> list[str]:
    del root
    return [*prefix, str(BIN / "state-bundler"), *map(str, arguments)]


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A project of three keys, whose states hold what the variable STATE says."""
    root = tmp_path / "shop"
    write = "import os, sys; open(sys.argv[1], 'w').write(os.environ['STATE'] * 1000)"
    command = json.dumps([sys.executable, "-c", write, "{state_path}"])
    (root / "src/shop").mkdir(parents=True)
    (root / "src/shop/__init__.py").touch()
    sources = "".join(
        f'[[tool.state-bundler.source]]\nkey = "{key}"\npath = "{STATES}"\ncommand = {command}\n'
        for key in "abc"
    )
    (root / "pyproject.toml").write_text(f'[project]\nname = "shop"\nversion = "1"\n{sources}')
    return root


def states_in(pex: Path) -> set[str]:
    with zipfile.ZipFile(pex) as archive:
        return {
            archive.read(name).decode()[:1]
            for name in archive.namelist()
            if name.endswith("/state")
        }


def test_each_build_ships_what_it_has_fetched(shop: Path) -> None:
    build = ("build", "pex", "--no-guard", "--allow-shrink", "*")
    for turn in range(ROUNDS):
        running = [
            subprocess.Popen(
                bundler(shop, *build, "-o", f"{state}.pex", "--", "-D", "src", "--venv"),
                cwd=shop,
                env={**os.environ, "STATE": state},
                stderr=subprocess.PIPE,
                text=True,
            )
            for state in ("x", "y", "z")
        ]
        for process, state in zip(running, ("x", "y", "z"), strict=True):
            said = process.communicate()[1]
            # pex reads the sources itself, and with them what others stage.
            assert process.returncode in (0, 75), (turn, said)
            if process.returncode == 0:
                assert states_in(shop / f"{state}.pex") == {state}
            else:
                assert "while another process refreshed" in said
    assert not [name for name in os.listdir(shop / STATES / "@staging") if "state-bundler" in name]


def test_what_is_published_ships_while_others_publish(shop: Path) -> None:
    refresh = bundler(shop, "refresh", "--allow-shrink", "*")
    subprocess.run(refresh, cwd=shop, env={**os.environ, "STATE": "x"}, check=True)
    for turn in range(ROUNDS):
        state = "yx"[turn % 2]
        publishing = subprocess.Popen(refresh, cwd=shop, env={**os.environ, "STATE": state})
        build = bundler(shop, "build", "oci", "--no-guard", "--refresh", "never", "-o", f"l{turn}")
        done = subprocess.run(build, cwd=shop, capture_output=True, text=True, check=False)
        assert publishing.wait() == 0
        assert done.returncode in (0, 75), done.stderr  # 75: it says that another one published
        if done.returncode == 0:
            subprocess.run(bundler(shop, "verify", f"oci:l{turn}"), cwd=shop, check=True)


def test_a_checkout_that_is_read_only(shop: Path, tmp_path: Path) -> None:
    from tests.pex.test_without_a_home import AS_NOBODY

    prefix = AS_NOBODY if os.geteuid() == 0 else ()
    out = tmp_path / "out"
    out.mkdir()
    out.chmod(0o777)
    older = ("refresh", "-o", out / "older.tar")
    for arguments, state in ((older, "w"), (("refresh",), "x")):
        environ = {**os.environ, "STATE": state}
        subprocess.run(bundler(shop, *arguments), cwd=shop, env=environ, check=True)
    if not prefix:
        for path in (shop, *shop.rglob("*")):
            path.chmod(path.stat().st_mode & 0o555)
    before = {path: path.lstat().st_mtime_ns for path in (shop, *shop.rglob("*"))}
    never = ("--no-guard", "--refresh", "never")
    replay = ("--no-guard", "--state-from", out / "older.tar")
    for arguments in (
        ("build", "pex", *never, "-o", out / "a.pex", "--", "-D", "src"),
        ("build", "oci", *never, "-o", out / "layout"),
        ("refresh", "--when", "never", "-o", out / "states.tar"),
        ("refresh", "--when", "never"),
        ("build", "pex", *replay, "-o", out / "b.pex", "--", "-D", "src"),
        ("build", "oci", *replay, "-o", out / "replayed"),
        ("status",),
        ("verify", STATES),
    ):  # fmt: skip
        done = subprocess.run(
            bundler(shop, *arguments, prefix=prefix), cwd=shop, capture_output=True, text=True,
            env={**os.environ, "PEX_ROOT": str(out / "pex-root")}, check=False,
        )  # fmt: skip
        assert done.returncode == 0, (arguments, done.stderr)
    assert states_in(out / "a.pex") == {"x"}
    assert states_in(out / "b.pex") == {"w"}
    assert {path: path.lstat().st_mtime_ns for path in (shop, *shop.rglob("*"))} == before
    # What would have to be published cannot be, and that is said.
    done = subprocess.run(
        bundler(shop, "refresh", prefix=prefix), cwd=shop, capture_output=True, text=True,
        env={**os.environ, "STATE": "y"}, check=False,
    )  # fmt: skip
    assert done.returncode == 74
    assert str(shop / STATES) in done.stderr
