"""Runs the commands of the PEX and wheel guides in order, as a user types them: 10 s of CPU."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.pex.test_pex_bundle import make_project
from tests.support.environments import ROOT
from tests.support.pex_projects import output_of

BIN = Path(sys.executable).parent


def test_the_commands_of_the_guide_do_what_it_says(tmp_path: Path) -> None:
    pages = [(ROOT / "docs/how-to" / name).read_text() for name in ("pex.md", "wheel.md")]
    consoles = re.findall(r"```console\n(.*?)```", "".join(pages), re.DOTALL)
    commands = [line[2:] for console in consoles for line in console.splitlines()]
    assert len(commands) > 5
    project = make_project(tmp_path)
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PEX_")}
    environ |= {
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
    }
    for number, command in enumerate(commands):
        (tmp_path / "state").write_text(f"state {number}")
        done = subprocess.run(
            command.split(), cwd=project, env=environ, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{command}\n{done.stderr}"
        if command.split()[1:2] == ["update"]:
            assert output_of(project / "app.pex", tmp_path / "root") == f"Shop=state {number}"
