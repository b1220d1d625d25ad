"""Which variables a message names, and how it describes what a component raises."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bundler.refresh.outcome.exchanges import links
from bundler.worker import watching

_PROGRAM = """
import importlib.util, json, os, sys
sys.path[:0] = [{root!r}, {library!r}]
spec = importlib.util.spec_from_file_location("watching", {watching!r})
watching = importlib.util.module_from_spec(spec)
spec.loader.exec_module(watching)
import component
told = []
watching.tell_environment({root!r}, lambda kind, **said: told.append(said["name"]))
try:
    component.write()
except KeyError as error:
    watching.print_traceback(error)
print(json.dumps(told))
"""
_COMPONENT = """
import os, subprocess, library
def write():
    library.connect()
    subprocess.run(["true"], env={**os.environ, "MORE": "1"})
    subprocess.run(["true"], env=os.environ.copy())
    assert "PATH" in dict(os.environ)
    for name, value in os.environ.items():
        assert os.environ.get("SHOP_TOKEN") and value is not None
    os.getenv("SHOP_REGION")
    os.environ["SHOP_URL"]
"""


def test_only_what_the_project_itself_reads_by_name_is_reported(tmp_path: Path) -> None:
    library = tmp_path / ".venv/lib/python3.11/site-packages"
    library.mkdir(parents=True)
    (library / "library.py").write_text("import os\ndef connect(): os.environ['PATH']\n")
    (tmp_path / "component.py").write_text(_COMPONENT)
    program = _PROGRAM.format(watching=watching.__file__, root=str(tmp_path), library=str(library))
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={"PATH": "/usr/bin:/bin", "HOME": "/nowhere", "SHOP_TOKEN": "x", "Z": "y"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert json.loads(done.stdout) == ["SHOP_TOKEN", "SHOP_REGION", "SHOP_URL"]
    shown = done.stderr.splitlines()
    assert shown[0].startswith("Traceback")
    assert shown[-1] == "KeyError: 'SHOP_URL'"
    assert "component.py" in done.stderr
    assert "watching.py" not in done.stderr


class RaisingError(Exception):
    """Of a foreign library: whatever is read of it raises."""

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("__"):
            return super().__getattribute__(name)
        raise RuntimeError(name)

    def __str__(self) -> str:
        raise SystemExit


class OpenError(Exception):
    """Of a foreign library: it has every attribute."""

    value: Any = None

    def __getattr__(self, name: str) -> Any:
        return self.value


def _open(value: Any) -> OpenError:
    error = OpenError("no catalogue")
    error.value = value
    return error


def _headers(retry_after: Any) -> Exception:
    return _open(type("Response", (), {"headers": {"Retry-After": retry_after}, "status": 503}))


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (RaisingError(), ("", None, None, None, None)),
        *((_open(value), ("no catalogue", *[None] * 4)) for value in ("", "5", True, [], 1.5)),
        (_open(7), ("no catalogue", 7, None, 7, None)),
        (_headers("5"), ("no catalogue", None, 503, None, 5.0)),
        (_headers("Wed, 21 Oct 2015 07:28:00 GMT"), ("no catalogue", None, 503, None, None)),
        (_headers(10**400), ("no catalogue", None, 503, None, None)),
        (OSError(10**30, "\udcff"), (f"[Errno {10**30}] \udcff", 10**30, None, None, None)),
    ],
)
def test_an_exception_with_any_attributes_is_described(
    error: Exception, said: tuple[object, ...]
) -> None:
    """And so is what caused it."""
    error.__cause__ = ConnectionRefusedError(111, "refused")
    error.__cause__.__cause__ = error
    first, cause = links(json.loads(json.dumps(watching.describe(error))))
    assert (first.text, first.errno, first.status, first.wire, first.retry_after) == said
    assert (cause.errno, "ConnectionError" in cause.names) == (111, True)
