"""A real git repository for a test: ``wd("git add -A")``, ``wd.write``, ``wd.commit``.

git sees neither the configuration of the user nor that of the machine, and nothing of the
environment that the test suite itself runs in.
"""

from __future__ import annotations

import functools
import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.support import forked

STATE = ".local_defs_state"
# A state with enough in it to differ from another file.
CONTENT = '{"connectors": ["orders", "customers", "returns"], "synced": true}\n'
GUARD = Path(sys.executable).with_name("state-guard")
# With git's own, a dozen samples of hooks take more than the rest of `git init`, and each commit
# starts another git to see whether it is time to tidy up.
_TEMPLATE = Path(__file__).with_name("git_template")
_INIT = ("git", "init", "--quiet", "--initial-branch=main", f"--template={_TEMPLATE}")


def environment(home: Path) -> dict[str, str]:
    """What git runs with: an empty home, no configuration but the repository's own."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    return {
        **kept,
        "HOME": str(home),
        "XDG_CONFIG_HOME": str(home / ".config"),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_AUTHOR_NAME": "A. U. Thor",
        "GIT_AUTHOR_EMAIL": "author@example.com",
        "GIT_COMMITTER_NAME": "C. O. Mitter",
        "GIT_COMMITTER_EMAIL": "committer@example.com",
        "LC_ALL": "C.UTF-8",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }


@functools.cache
def _empty_repository() -> dict[str, bytes | None]:
    """What `git init` makes, by path; None for a directory. To write it is faster."""
    with TemporaryDirectory() as folder:
        root = Path(folder)
        subprocess.run([*_INIT, folder], env=environment(root), check=True)
        return {
            os.fspath(path.relative_to(root)): None if path.is_dir() else path.read_bytes()
            for path in sorted(root.rglob("*"))
        }


class WorkDir:
    """A directory to run commands in, and the environment that they see."""

    def __init__(self, path: Path, env: dict[str, str]) -> None:
        self.path = path
        self.env = env

    @classmethod
    def make(cls, path: Path, *, options: Sequence[str] = ()) -> WorkDir:
        """A repository without a commit; its home is next to it."""
        home = path.parent / f"{path.name}-home"
        path.mkdir(parents=True)
        (home / ".config").mkdir(parents=True)
        wd = cls(path, environment(home))
        if options:
            wd([*_INIT, *options])
        else:
            for name, content in _empty_repository().items():
                if content is None:
                    os.mkdir(path / name)
                else:
                    (path / name).write_bytes(content)
        return wd

    def at(self, *parts: str) -> WorkDir:
        """The same environment, in another directory."""
        return WorkDir(self.path.joinpath(*parts), self.env)

    def run(
        self,
        command: str | Sequence[str | bytes | os.PathLike[str]],
        *,
        env: dict[str, str] | None = None,
        stdin: bytes | None = None,
    ) -> subprocess.CompletedProcess[bytes]:
        """Runs a command, whatever its exit code."""
        argv = shlex.split(command) if isinstance(command, str) else list(command)
        return forked.run(argv, cwd=self.path, env={**self.env, **(env or {})}, stdin=stdin or b"")

    def __call__(
        self,
        command: str | Sequence[str | bytes | os.PathLike[str]],
        *,
        env: dict[str, str] | None = None,
        stdin: bytes | None = None,
    ) -> str:
        """Runs a command that must succeed; returns what it printed."""
        done = self.run(command, env=env, stdin=stdin)
        assert done.returncode == 0, (command, done.stdout, done.stderr)
        return os.fsdecode(done.stdout).removesuffix("\n")

    def write(self, path: str | bytes, content: str | bytes | None = None) -> Path:
        """Writes a file, and the directories above it: state, or a text that is no other's."""
        path = os.fsdecode(path)
        if content is None:
            content = CONTENT if STATE in path else f"This is {path}, and no state.\n"
        target = self.path / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(os.fsencode(content) if isinstance(content, str) else content)
        return target

    def commit(self, message: str = "change", *, add: bool = True) -> None:
        """Commits everything."""
        if add:
            self("git add -A")
        self(["git", "commit", "--quiet", "--allow-empty", "-m", message])

    def head(self) -> str:
        return self("git rev-parse HEAD")

    def submodule(self, library: WorkDir, path: str) -> None:
        """Adds another repository as a submodule."""
        add = ["submodule", "add", "--quiet", "--", str(library.path), path]
        self(["git", "-c", "protocol.file.allow=always", *add])

    def guard(
        self, *arguments: str, env: dict[str, str] | None = None, stdin: bytes | None = None
    ) -> Said:
        """Runs the installed ``state-guard``."""
        return Said(self.run([str(GUARD), *arguments], env=env, stdin=stdin))


class Said:
    """What the guard said: its exit code, its messages."""

    def __init__(self, done: subprocess.CompletedProcess[bytes]) -> None:
        self.code = done.returncode
        self.out = os.fsdecode(done.stdout)
        self.err = os.fsdecode(done.stderr)

    def __repr__(self) -> str:
        return f"exit code {self.code}\n{self.out}\n{self.err}"

    @property
    def errors(self) -> list[str]:
        return [line for line in self.err.splitlines() if line.startswith("✗ findings (1): ")]

    @property
    def warnings(self) -> list[str]:
        return [line for line in self.err.splitlines() if line.startswith("warning:")]
