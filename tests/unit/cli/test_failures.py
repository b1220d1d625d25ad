"""What typical failures print on a terminal: 80 x 24 and 200 x 50, no colours, LC_ALL=C.

``BUNDLER_TEST_WRITE=1`` writes ``failures.txt`` anew: read the difference.
"""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import tempfile
import termios
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.workdir import WorkDir

_EXPECTED = Path(__file__).with_name("failures.txt")
_PROGRAM = Path(sys.executable).with_name("state-bundler")
_SIZES = ((80, 24), (200, 50))
_SOURCE = """
[[tool.state-bundler.source]]
key = "{key}"
command = ["sh", "-c", "{script}", "{{state_path}}"]
path = "src/shop/state"
"""
_SOURCES = {
    "Orders": "echo '[1, 2]' > $0",
    "Catalogue": "set -e; echo no such table; exit 3",
    "Calendar": "exit 4",
    "Empty": "echo '[]' > $0",
}
# A name -> the words after state-bundler, from usage to a damaged artifact.
_CASES: dict[str, tuple[str, ...]] = {
    "an unknown command": ("refesh",),
    "an unknown option": ("verify", "oci:image", "--max-ag", "1h"),
    "an option of two meanings": ("build", "--all", "oci", "-o", "image"),
    "an unknown key": ("refresh", "--key", "Order"),
    "a key that fails": ("refresh", "--key", "Catalogue"),
    "two of three keys fail": (
        "refresh", "--key", "Calendar", "--key", "Catalogue", "--key", "Orders", "--jobs", "1",
    ),
    "an empty state": ("refresh", "--key", "Empty"),
    "state in git": ("guard", "-C", "../committed"),
    "a build with state in git": ("build", "oci", "--project", "../committed", "-o", "x"),
    "a setting that does not exist": ("refresh", "--project", "../misspelt"),
    "what doctor finds": ("doctor", "--project", "../empty"),
    "no project": ("status", "--project", "../empty"),
    "no store": ("store", "list"),
    "no artifact": ("verify", "oci:nothing"),
    "several policies violated": (
        "verify", "oci:image", "--require", "Order", "--require", "Customers", "--guarded",
        "--environment", "prod",
    ),
    "a damaged artifact": ("verify", "../damaged/state"),
}  # fmt: skip


@pytest.fixture(scope="module")
def shop() -> Iterator[WorkDir]:
    # Messages with a path are wrapped, so its length must not vary.
    with tempfile.TemporaryDirectory(prefix="b-", dir="/tmp") as folder:  # see above
        yield _make(Path(folder).resolve())


def _make(folder: Path) -> WorkDir:
    sources = "".join(_SOURCE.format(key=key, script=it) for key, it in _SOURCES.items())
    shop = WorkDir.make(folder / "shop")
    shop.write("pyproject.toml", f'[project]\nname = "shop"\n{sources}')
    shop.write(".gitignore", "state\nimage\n")
    shop("git add .")
    shop.commit("shop")
    committed = WorkDir.make(folder / "committed")
    committed.write("pyproject.toml", _SOURCE.format(key="Orders", script="exit 1"))
    committed.write("src/shop/state/Orders/state", "[1]")
    committed.write("src/shop/state/Returns/state", "[2]")
    committed("git add .")
    committed.commit("committed")
    misspelt = folder / "misspelt"
    misspelt.mkdir()
    (misspelt / "pyproject.toml").write_text("[tool.state-bundler]\ntimeuot = '5m'\n")
    (folder / "empty").mkdir()
    _on_terminal(
        shop, ("build", "oci", "--key", "Orders", "-o", "image", "--no-guard", "-q"), 80, 24
    )
    damaged = folder / "damaged" / "state"
    damaged.parent.mkdir()
    subprocess.run(["cp", "-r", shop.path / "src/shop/state", damaged], check=True)
    (damaged / "Orders" / "state").write_text("[3]")
    (damaged / "Orders" / "more").write_text("[4]")
    return shop


def _on_terminal(wd: WorkDir, words: tuple[str, ...], columns: int, lines: int) -> str:
    """What a command prints on a terminal of this size; ``dumb``, so that it draws nothing."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
    kept = {name: it for name, it in wd.env.items() if name not in ("CI", "COLUMNS", "LINES")}
    environment = {
        **{name: it for name, it in kept.items() if not name.startswith(("GITHUB_", "GITLAB_"))},
        "LC_ALL": "C",
        "NO_COLOR": "1",
        "TERM": "dumb",
        "PYTHONUTF8": "0",
        "HOME": str(wd.path.parent / "home"),
    }
    argv = [_PROGRAM, *words]
    with subprocess.Popen(
        argv, cwd=wd.path, env=environment, stdin=theirs, stdout=theirs, stderr=theirs
    ) as process:
        os.close(theirs)
        shown = b""
        while part := _read(ours):
            shown += part
        code = process.wait()
    os.close(ours)
    text = shown.decode("ascii").replace("\r\n", "\n")
    return _uniform(text, wd.path.parent) + f"exit code {code}\n"


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65536)
    except OSError:  # Linux reports the end of a terminal as an error
        return b""


def _uniform(text: str, folder: Path) -> str:
    text = text.replace(str(folder), "/w").replace(sys.executable, "python")
    text = re.sub(r"  \S+: \S*python\S* \(.*\)\n", "", text)
    text = re.sub(r"\b\d+\.\d s\b", "N s", text)
    # What a slow machine announces.
    text = re.sub(r"^(?:\S.* \.\.\.|  .* so far)\n", "", text, flags=re.MULTILINE)
    return re.sub(r"^Log: \S+/", "Log: /logs/", text, flags=re.MULTILINE)


def _expected() -> dict[str, str]:
    if not _EXPECTED.exists():
        return {}
    parts = re.split(r"^=== (.*) ===\n", _EXPECTED.read_text(encoding="ascii"), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


@pytest.mark.slow  # two processes a failure
def test_what_a_failure_prints(shop: WorkDir) -> None:
    shown = {
        f"{name}, {columns} x {lines}": "$ state-bundler {}\n{}\n".format(
            " ".join(words), _on_terminal(shop, words, columns, lines)
        )
        for name, words in _CASES.items()
        for columns, lines in _SIZES
    }
    if os.environ.get("BUNDLER_TEST_WRITE"):
        text = "".join(f"=== {name} ===\n{it}" for name, it in shown.items())
        _EXPECTED.write_text(text, encoding="ascii")
    assert shown == _expected(), "BUNDLER_TEST_WRITE=1 writes the file; read the difference"


def test_no_line_to_read_is_wider_than_its_terminal() -> None:
    for name, text in _expected().items():
        columns = int(re.findall(r"(\d+) x \d+$", name)[0])
        for line in text.splitlines():
            to_copy = line.startswith(("$ ", "  Fix: ", "  Where: ")) or " " not in line.strip()
            assert to_copy or len(line) <= columns, f"{name}: {line}"


def test_each_failure_is_printed_once() -> None:
    for name, text in _expected().items():
        whats = re.findall(r"^x [\w /]+ \(\d+\): (.*)$", text, re.MULTILINE)
        assert len(whats) == len(set(whats)), name
