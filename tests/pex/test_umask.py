"""Every command that writes, under every umask: of use to its user, not writable for others."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest

from tests.campaigns.fault_campaign import STATES, configure, write_inputs
from tests.pex.test_without_a_home import AS_NOBODY, USER
from tests.support import forked
from tests.support.layouts import LayoutMaker, code_layer

NEVER = ("--no-guard", "--refresh", "never")
COMMANDS = (
    ("init", "--yes"),
    ("refresh",),
    ("build", "pex", *NEVER, "-o", "app.pex", "--", "-D", "src", "--venv"),
    ("build", "pex", *NEVER, "-o", "loose", "--", "-D", "src", "--layout", "loose"),
    ("build", "oci", *NEVER, "--base", "base:code", "-o", "layout:1"),
    ("build", "oci", *NEVER, "--base", "base:code", "-o", "image.tar:1"),
    ("embed", "oci:base:code", *NEVER, "--tag", "oci:made/layout:1"),
    ("refresh", "--when", "never", "-o", "states.tar"),
    ("extract", "app.pex", "-o", "taken/out"),
    ("status", "--html", "page.html"),
    ("store", "push", str(STATES), "--store", "file://{root}/store"),
    ("refresh", "--allow-shrink", "*"),  # another state, from here on
    ("update", "app.pex", *NEVER),
    ("update", "loose", *NEVER),
    ("update", "oci:layout:1", *NEVER),
    ("update", "oci:image.tar:1", *NEVER),
)


@pytest.mark.parametrize("umask", [0o777, 0o000, 0o077, 0o002])
def test_modes(tmp_path: Path, umask: int) -> None:
    root = tmp_path / "shop"
    (root / "src/shop/defs").mkdir(parents=True)
    for package in ("shop", "shop/defs"):
        (root / "src" / package / "__init__.py").touch()
    for state in ("old", "new"):
        write_inputs(tmp_path / state, {"a": {"state": state, "more/part": state}})
    configure(root, tmp_path / "old", ["a"])
    maker = LayoutMaker(root / "base")
    maker.tag(maker.manifest([code_layer()], {"WorkingDir": "/app"}), "code")
    subprocess.run(["git", "init", "-q", root], check=True)
    as_user: tuple[str, ...] = ()
    if os.geteuid() == 0:  # which could read and write anything
        as_user = AS_NOBODY
        subprocess.run(["chown", "-R", f"{USER}:0", tmp_path], check=True)
    given = {path for path in root.rglob("*") if "base" not in path.parts}
    for arguments in COMMANDS:
        if arguments == ("refresh", "--allow-shrink", "*"):
            text = (root / "pyproject.toml").read_text()
            (root / "pyproject.toml").write_text(text.replace("/old/", "/new/"))
        command = [argument.replace("{root}", str(root)) for argument in arguments]
        done = forked.said(
            "state-bundler", *command, cwd=root, umask=umask, as_user=as_user,
            env={**os.environ, "HOME": "/nonexistent", "GIT_CONFIG_GLOBAL": os.devnull},
        )  # fmt: skip
        assert done.returncode == 0, (arguments, done.stderr)
    assert (root / "app.pex").stat().st_mode & 0o500 == 0o500
    for path in sorted(root.rglob("*")):
        if path in given or path.is_symlink() or ".git" in path.parts or "base" in path.parts:
            continue
        mode = stat.S_IMODE(path.stat().st_mode)
        wanted = 0o700 if path.is_dir() else 0o400
        assert mode & wanted == wanted, (path, oct(mode))
        assert not mode & 0o002, (path, oct(mode))
        assert umask == 0o002 or not mode & 0o020, (path, oct(mode))
    for path in (root / "layout/index.json", *(root / "layout/blobs/sha256").iterdir()):
        assert stat.S_IMODE(path.stat().st_mode) == 0o644, path
    assert stat.S_IMODE((root / "layout/blobs/sha256").stat().st_mode) == 0o755
    assert stat.S_IMODE((root / "layout").stat().st_mode) == 0o755
