"""A program that is loaded at its own start, next to its state, with `@verify.py --load`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bundler import verify_at_start
from bundler.errors import UsageError
from bundler.project.projects import open_project
from bundler.refresh.model import Component, Found
from bundler.refresh.run import Refreshed
from bundler.state.manifest import DirectoryRefresh, KeyRefresh
from bundler.state.statedir import StateDir
from bundler.workflows.loadcheck import environment_of, targets_of
from bundler.workflows.pipeline import LoadRequest, Prepared, with_load
from tests.dagster.test_loadcheck import PROGRAM
from tests.support.pex_projects import PLACE, bundle_of, set_state, write
from tests.support.statedirs import publish


def _start(directory: Path, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, directory / "@verify.py", *arguments],
        cwd=cwd, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(Path(verify_at_start.__file__).parent.parent)},
    )  # fmt: skip


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """The folder from which the program imports, with its state."""
    write(tmp_path, {"shop/__init__.py": "", "shop/catalog.py": PROGRAM})
    publish(StateDir(tmp_path / "shop/state", "shop/state"), {"Catalog[acme]": {"state": "[1, 2]"}})
    return tmp_path


def test_at_the_start_of_the_program_it_is_loaded_too(program: Path) -> None:
    state = program / "shop/state"
    target = ("--load", "shop.catalog:products")
    done = _start(state, *target, sys.executable, "-c", "print('started')", cwd=program)
    assert (done.returncode, done.stdout, done.stderr) == (0, "started\n", "")
    done = _start(state, *target, "--min-definitions", "3", "echo", "started", cwd=program)
    assert (done.returncode, done.stdout) == (76, "")
    assert "loads 2 definitions, fewer than 3" in done.stderr
    done = _start(state, "--load", "shop.nothing", "echo", "started", cwd=program)
    assert (done.returncode, done.stdout) == (76, "")
    assert "No module named 'shop.nothing'" in done.stderr
    (program / "shop/ends.py").write_text("import sys\nsys.exit(0)\n")
    done = _start(state, "--load", "shop.ends", cwd=program)
    assert (done.returncode, done.stdout) == (76, "")
    assert "does not load: SystemExit: 0" in done.stderr
    for wrong in ((*target, "--min-definitions", "many"), ("--min-definitions", "1")):
        done = _start(state, *wrong, "echo", "started", cwd=program)
        assert (done.returncode, done.stdout) == (2, "")
        assert "--min-definitions requires a number, and --load." in done.stderr
    (state / "Catalog__acme__" / "state").write_text("[1, 2, 3]")
    done = _start(state, *target, "echo", "started", cwd=program)
    assert (done.returncode, done.stdout) == (76, "")
    assert "state does not match the manifest" in done.stderr


# --- what is loaded, and with what ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "dg", "expected"),
    [
        ({"src/shop/definitions.py": ""}, "", "shop.definitions"),
        ({"shop/definitions/__init__.py": ""}, "", "shop.definitions"),
        ({"src/shop/entry.py": ""}, 'code_location_target_module = "shop.entry"\n', "shop.entry"),
        ({"src/shop/__init__.py": ""}, "", "defs-of:shop"),
    ],
)
def test_what_a_code_server_would_load(
    tmp_path: Path, files: dict[str, str], dg: str, expected: str
) -> None:
    write(tmp_path, {**files, "dg.toml": f'[project]\nroot_module = "shop"\n{dg}'})
    project = open_project(tmp_path, python=Path(sys.executable))
    assert targets_of([project]) == (expected,)
    assert targets_of([project], ["other"]) == ("other",)


def test_what_a_file_declares_must_be_loaded(tmp_path: Path) -> None:
    """If its state is embedded, unless the user says what to load."""
    write(tmp_path, {"src/shop/definitions.py": "", "dg.toml": '[project]\nroot_module = "shop"\n'})
    project = open_project(tmp_path, python=Path(sys.executable))
    bundle = bundle_of(set_state(tmp_path / "state", Declared="1", Function="1"))
    places = {"Declared": "defs/a/defs.yaml", "Far": "defs/b/defs.yaml", "Function": "defs/c.py"}
    components = tuple(
        Component(key, "LOCAL_FILESYSTEM", "a.B", location=at) for key, at in places.items()
    )
    found = Found(bundle.root, PLACE, components)
    prepared = Prepared((project,), Refreshed((bundle,), (), (found,)))
    check_all = with_load(prepared, LoadRequest(), by_default=True).load_check
    assert check_all is not None
    assert check_all.declared == {"Declared": "defs/a/defs.yaml"}
    named = LoadRequest(modules=("shop.definitions",))
    check_named = with_load(prepared, named, by_default=True).load_check
    assert check_named is not None
    assert not check_named.declared


def test_of_a_program_without_dagster_the_module_must_be_named(tmp_path: Path) -> None:
    source = '[[tool.state-bundler.source]]\nkey = "A"\ncommand = ["true"]\npath = "state"\n'
    write(tmp_path, {"pyproject.toml": source})
    with pytest.raises(UsageError, match="unknown what to load"):
        targets_of([open_project(tmp_path, python=Path(sys.executable))])


def test_only_the_keys_variables_are_handed_in() -> None:
    keys = (KeyRefresh("A", environment_variables=("B", "MISSING")), KeyRefresh("C"))
    refresh = [DirectoryRefresh("x", keys)]
    assert environment_of(refresh, {"B": "1", "OTHER": "2"}) == {"B": "1"}
