"""Start-up is a feature: what is only asked for its help imports nothing heavy."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bundler.cli.commands import _COMMANDS
from tests.support.workdir import WorkDir

ROOT = Path(__file__).parents[3]
BIN = Path(sys.executable).parent
HEAVY = {"dagster", "docker", "git", "msgspec", "rich", "stamina", "tomlkit", "urllib3"}

# `git` at the top level is GitPython; bundler.git is ours, and cheap.
_MODULES = """\
import json, sys
sys.argv = ["state-bundler", *{arguments!r}]
from bundler.cli import main
try:
    main()
except SystemExit as end:
    assert end.code in (0, None), end.code
finally:
    print("\\n" + json.dumps(sorted({{name.partition(".")[0] for name in sys.modules}})))
"""


def _imported(*arguments: str) -> set[str]:
    script = _MODULES.format(arguments=list(arguments))
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize("arguments", [("--help",), ("--version",)])
def test_help_and_version_import_nothing_heavy(arguments: tuple[str, ...]) -> None:
    assert _imported(*arguments) & HEAVY == set()


@pytest.mark.parametrize("command", _COMMANDS)
def test_the_help_of_a_command_imports_nothing_heavy(command: str) -> None:
    assert _imported(command, "--help") & HEAVY == set()


# Each takes milliseconds, at every commit of everybody.
SLOW = {
    *("asyncio", "click", "collections", "dataclasses", "enum", "functools", "inspect", "msgspec"),
    *("pathlib", "re", "shutil", "subprocess", "tempfile", "typing", "urllib"),
}
_OF_THE_GUARD = """\
import sys
before = set(sys.modules)
from bundler.cli.state_guard import main
code = main()
print(" ".join(set(sys.modules) - before))
sys.exit(code)
"""


@pytest.mark.parametrize("state", ["", "defs/.local_defs_state/K/state"])
@pytest.mark.parametrize("arguments", [[], ["--staged"]])
def test_the_guard_imports_next_to_nothing(wd: WorkDir, arguments: list[str], state: str) -> None:
    wd.write(".gitignore", ".local_defs_state/\n")
    wd.write("code.py")
    wd.commit("code")
    if state:
        wd.write(state, '{"rows": [1, 2, 3, 4, 5, 6, 7, 8]}')
    script = f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{_OF_THE_GUARD}"
    done = wd.run([sys.executable, "-I", "-S", "-c", script, *arguments])
    assert done.returncode == 0, done
    assert set(done.stdout.decode().splitlines()[-1].split()) & SLOW == set()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_can_complete(shell: str) -> None:
    def said(instruction: str, **variables: str) -> str:
        done = subprocess.run(
            [BIN / "state-bundler"],
            env={**os.environ, "_STATE_BUNDLER_COMPLETE": f"{shell}_{instruction}", **variables},
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout

    assert f"{shell}_complete" in said("source")
    words = "state-bundler build pe"
    last = "pe" if shell == "fish" else "2"
    assert "pex" in said("complete", COMP_WORDS=words, COMP_CWORD=last)
    words = "state-bundler verify --max"
    last = "--max" if shell == "fish" else "2"
    assert "--max-age" in said("complete", COMP_WORDS=words, COMP_CWORD=last)
