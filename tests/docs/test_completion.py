"""Completion, in the real shells: the documented line is put in, a word begun, and Tab pressed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.environments import ROOT

BIN = Path(sys.executable).parent
_SHELLS = {
    "bash": ("bash --norc --noprofile", "PS1='ready> '"),
    "zsh": ("zsh -f", "PS1='ready> '; autoload -Uz compinit; compinit -u -d $HOME/.zcompdump"),
    "fish": ("fish --no-config", "function fish_prompt; echo -n 'ready> '; end; clear"),
}
_SECONDS = 60.0


def _line_of(shell: str) -> str:
    """What the documentation says to put into the shell's start-up file."""
    readme = (ROOT / "docs/how-to/install.md").read_text()
    (line,) = re.findall(rf"^(.*state-bundler completion {shell}\S*.*?) *#", readme, re.MULTILINE)
    return str(line)


class Terminal:
    """A pane of its own tmux server."""

    def __init__(self, name: str, environment: dict[str, str]) -> None:
        self._tmux = ["tmux", "-L", name, "-f", "/dev/null"]
        self._environment = environment

    def __call__(self, *arguments: str) -> str:
        done = subprocess.run([*self._tmux, *arguments], env=self._environment,
                              capture_output=True, text=True, check=True)  # fmt: skip
        return done.stdout

    def type(self, text: str, *keys: str) -> None:
        self("send-keys", "-l", "--", text)
        for key in keys:
            self("send-keys", key)

    def wait_for(self, pattern: str) -> str:
        """The screen, as soon as a line of it is like this."""
        deadline = time.monotonic() + _SECONDS
        while time.monotonic() < deadline:
            shown = self("capture-pane", "-p")
            if re.search(pattern, shown, re.MULTILINE):
                return shown
            time.sleep(0.1)
        raise AssertionError(f"{pattern!r} was not shown:\n{self('capture-pane', '-p')}")


@contextmanager
def _terminal(command: str, home: Path) -> Iterator[Terminal]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TMUX")}
    path = f"{BIN}{os.pathsep}{kept['PATH']}"
    environment = {
        **kept,
        "HOME": str(home),
        "PATH": path,
        "TERM": "xterm",
        "TMUX_TMPDIR": str(home),
    }
    terminal = Terminal(uuid.uuid4().hex[:8], environment)
    terminal("new-session", "-d", "-x", "100", "-y", "30", f"env PATH='{path}' {command}")
    try:
        yield terminal
    finally:
        terminal("kill-server")


@pytest.mark.parametrize("shell", _SHELLS)
def test_tab_completes_commands_and_options(shell: str, tmp_path: Path) -> None:
    command, prepare = _SHELLS[shell]
    with _terminal(command, tmp_path) as terminal:
        terminal.type(prepare, "Enter")
        terminal.wait_for(r"^ready>")
        terminal.type(_line_of(shell), "Enter")
        terminal.type("echo put in", "Enter")
        terminal.wait_for(r"^put in$")
        terminal.type("state-bundler ver", "Tab")
        terminal.wait_for(r"^ready> state-bundler verify\b")
        terminal.type("--max", "Tab")
        terminal.wait_for(r"^ready> state-bundler verify --max-age\b")


def test_fish_shows_a_help_text_with_commas_completely(tmp_path: Path) -> None:
    asked = 'complete --do-complete "state-bundler refresh --allow-stal"'
    done = subprocess.run(
        ["fish", "--no-config", "-c", f"{_line_of('fish')}; {asked}"],
        env={**os.environ, "HOME": str(tmp_path), "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "is unavailable, use the last good state" in done.stdout
