"""Loading a code location with a real Dagster, a program on `bundler.component` in a PEX.

`test_pex_dagster` loads a Dagster in a PEX, too. About 40 s.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from bundler import load_at_start, verify_at_start
from bundler.artifacts.image.engine.connection import Docker
from bundler.artifacts.image.engine.running import interpreters
from bundler.artifacts.image.engine.running import runner as image_runner
from bundler.artifacts.image.image_program import RunsAs
from bundler.artifacts.running import Runner, bare_environment, in_pex, isolated, with_wheel
from bundler.cli.commands import cli
from bundler.cli.run import run
from bundler.errors import ToolFailed, VerificationFailed
from bundler.listener import Listener
from bundler.state.manifest import RunRecord
from bundler.state.statedir import StateDir
from bundler.system import parallel, process
from bundler.system.process import Completed
from bundler.workflows.loadcheck import LoadCheck, NotTried, check, load
from tests.dagster.test_pex_dagster import COMPONENTS
from tests.support.embedding import embed_image, embed_pex
from tests.support.engine import PYTHON_BASE, Engine
from tests.support.environments import DAGSTER_ALONE, python_of
from tests.support.pex_projects import PLACE, package, run_pex, set_state, wheel, write
from tests.support.recording import RecordingListener
from tests.support.statedirs import publish

pytestmark = pytest.mark.engine

_DEFINITIONS = """
import os
from pathlib import Path
import dagster as dg

if os.environ.get("SHOP_MODE") == "broken":
    raise RuntimeError("cannot work with " + os.environ["SHOP_TOKEN"])

@dg.definitions
def defs():
    print("components print")
    return dg.load_from_defs_folder(path_within_project=Path(__file__).parent)
"""
_FAR = """
from shop.components import Catalog
import dagster as dg
from dagster.components.utils.defs_state import DefsStateConfig, DefsStateConfigArgs
from dagster_shared.serdes.objects.models.defs_state_info import DefsStateManagementType


class Far(Catalog):
    @property
    def defs_state_config(self):
        args = DefsStateConfigArgs(
            management_type=DefsStateManagementType.LEGACY_CODE_SERVER_SNAPSHOTS
        )
        return DefsStateConfig.from_args(args, default_key="Far")
"""


@pytest.fixture
def location(tmp_path: Path) -> Path:
    """A code location as it is in an image: its state has two assets."""
    write(
        tmp_path,
        {
            "dg.toml": '[project]\nroot_module = "shop"\n',
            "shop/__init__.py": "",
            "shop/components.py": COMPONENTS,
            "shop/far.py": _FAR,
            "shop/definitions.py": _DEFINITIONS,
            "shop/defs/__init__.py": "",
            "shop/defs/catalog/defs.yaml": "type: shop.components.Catalog\n",
            "shop/defs/far/defs.yaml": "type: shop.far.Far\n",
        },
    )
    set_state(tmp_path / PLACE, Catalog='["a", "b"]')
    return tmp_path


def _in(location: Path) -> Runner:
    """Runs in a folder with the interpreter that has Dagster, as in a container."""

    def run(arguments: Sequence[str], program: bytes, environment: Mapping[str, str]) -> Completed:
        environ = {**bare_environment(str(location), environment), "PYTHONPATH": str(location)}
        argv = [python_of(DAGSTER_ALONE), *arguments]
        return process.run(argv, cwd=location, env=environ, stdin=program)

    return run


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("run-root")


def _runner(pex: Path, root: Path) -> Runner:
    return in_pex(pex, Path(sys.executable), root, Listener())


_TARGET = ("shop.definitions",)


def test_a_code_location_loads_as_a_code_server_would(location: Path) -> None:
    listener = RecordingListener()
    (loaded,) = check(_in(location), LoadCheck(_TARGET), "shop", listener)
    assert loaded.definitions["assets"] == 2
    assert loaded.states == {"Catalog": True, "Far": None}
    assert listener.notes == ["Not in the artifact, so not checked: Far.", "Loads 2 assets."]
    # Without a module of definitions the folder is loaded as dg does, and agrees.
    assert load(_in(location), "defs-of:shop", LoadCheck(()), "shop") == loaded


def _says(**definitions: int) -> Runner:
    """An artifact that loads so many definitions."""
    report = {"definitions": definitions, "states": {}, "error": None}
    line = load_at_start.REPORT + json.dumps(report)
    return lambda *_: Completed(0, f"components print\n{line}\n".encode(), b"")


def test_fewer_definitions_than_before_are_a_failure() -> None:
    now, before = _says(assets=4, jobs=1), _says(assets=6)
    with pytest.raises(
        VerificationFailed, match=r"loads only 4 assets, 1 job; .* of that name has 6"
    ):
        check(now, LoadCheck(_TARGET), "shop", Listener(), baseline=before)
    check(before, LoadCheck(_TARGET), "shop", Listener(), baseline=now)
    check(now, LoadCheck(_TARGET, 5, compares=False), "shop", Listener(), baseline=before)
    with pytest.raises(VerificationFailed, match="requires 6"):
        check(now, LoadCheck(_TARGET, 6), "shop", Listener())
    with pytest.raises(VerificationFailed, match="requires 11"):
        check(now, LoadCheck((*_TARGET, "other"), 11), "shop", Listener())


def test_code_locations_load_concurrently(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "processors", lambda: 2)
    says, together = _says(assets=1), threading.Barrier(2, timeout=30)

    def run(*given: Any) -> Completed:
        together.wait()
        return says(*given)

    loaded = check(run, LoadCheck(("shop", "stock")), "both", Listener(), baseline=run)
    assert [each.total for each in loaded] == [1, 1]


def test_what_does_not_answer_could_not_be_tried_and_is_not_a_baseline() -> None:
    def dies(*_: object) -> Completed:
        return Completed(127, b"", b"python: not found")

    with pytest.raises(NotTried, match=r"exit code 127: python: not found"):
        check(dies, LoadCheck(_TARGET), "shop", Listener())
    check(_says(assets=1), LoadCheck(_TARGET), "shop", Listener(), baseline=dies)


@pytest.mark.parametrize(
    ("stderr", "kind"),
    [
        (b"exec /usr/bin/python: exec format error", NotTried),
        (b"Could not find a compatible interpreter.", NotTried),
        (b"Segmentation fault", ToolFailed),
    ],
)
def test_what_does_not_run_here_is_distinguished_from_what_dies(stderr: bytes, kind: type) -> None:
    with pytest.raises(ToolFailed) as failed:
        check(lambda *_: Completed(1, b"", stderr), LoadCheck(_TARGET), "shop", Listener())
    assert type(failed.value) is kind


@pytest.mark.parametrize(
    ("missing", "kind"),
    [
        ("tools", NotTried),
        ("tools.fetch", NotTried),
        ("tools.fetch.more", VerificationFailed),
        ("requests", VerificationFailed),
    ],
)
def test_a_module_that_only_a_refresh_needs_need_not_ship(missing: str, kind: type) -> None:
    error = f"ModuleNotFoundError: No module named '{missing}'"
    report = json.dumps({"definitions": {}, "states": {}, "error": error})
    done = Completed(0, f"{load_at_start.REPORT}{report}".encode(), b"")
    demanded = LoadCheck(("tools.fetch",), 0, is_required=False, may_be_absent=True)
    with pytest.raises(kind):
        check(lambda *_: done, demanded, "shop", Listener())


def test_without_a_demand_used_states_may_define_nothing(location: Path) -> None:
    set_state(location / PLACE, Catalog="[]")
    check(_in(location), LoadCheck(_TARGET, is_required=False), "shop", Listener())
    with pytest.raises(VerificationFailed, match="loads only 0 definitions"):
        check(_in(location), LoadCheck(_TARGET), "shop", Listener())
    with pytest.raises(VerificationFailed, match="loads only 0 definitions"):
        check(_says(), LoadCheck(_TARGET, is_required=False), "shop", Listener())


def test_a_location_that_dagster_does_not_find_is_reported_with_the_fix(location: Path) -> None:
    (location / "dg.toml").unlink()
    with pytest.raises(VerificationFailed) as failed:
        check(_in(location), LoadCheck(_TARGET, is_required=False), "shop", Listener())
    assert "Put one next to the package, or a dg.toml in it" in failed.value.hint


def test_a_wheel_loads_in_place_of_the_project(location: Path, tmp_path_factory: Any) -> None:
    folder = tmp_path_factory.mktemp("wheel")
    files = {
        path.relative_to(location).as_posix(): path.read_bytes()
        for path in location.rglob("*")
        if path.is_file()
    }
    made = wheel(folder, files)
    run_wheel = with_wheel(made, Path(python_of(DAGSTER_ALONE)), folder / "unpacked", Listener())
    (loaded,) = check(run_wheel, LoadCheck(_TARGET, is_required=False), "shop.whl", Listener())
    assert loaded.definitions["assets"] == 2
    # As setuptools does with files that are not Python, and the state is there.
    (folder / "unpacked/shop/defs/catalog/defs.yaml").unlink()
    declared = {"Catalog": "src/shop/defs/catalog/defs.yaml", "Far": "src/shop/defs/far/defs.yaml"}
    demanded = LoadCheck(_TARGET, 0, is_required=False, declared=declared)
    own = {"PYTHONPATH": str(folder / "unpacked")}
    runs = isolated([str(python_of(DAGSTER_ALONE))], own, Listener())
    with pytest.raises(VerificationFailed, match=r"nothing in it loads: Catalog \(src/shop/defs/c"):
        check(runs, demanded, "shop.whl", Listener())


def test_a_missing_state_is_a_failure_and_not_no_assets(location: Path) -> None:
    shutil.rmtree(location / PLACE)
    with pytest.raises(VerificationFailed, match="Catalog has no state"):
        check(_in(location), LoadCheck(_TARGET, 0), "shop", Listener())


def test_variables_are_passed_and_their_values_are_not_shown(location: Path) -> None:
    demanded = LoadCheck(_TARGET, environment={"SHOP_MODE": "broken", "SHOP_TOKEN": "hunter22"})
    with pytest.raises(VerificationFailed, match=r"RuntimeError: cannot work with \*\*\*"):
        check(_in(location), demanded, "shop", Listener())


PROGRAM = """
import json
from pathlib import Path
from bundler.component import DefsStateConfig, Load, StateBackedComponent


class Catalog(StateBackedComponent):
    defs_state_config = DefsStateConfig("Catalog[acme]")

    def write_state_to_path(self, state_path):
        raise SystemExit("a finished artifact asks nobody")

    def build_defs_from_state(self, context, state_path):
        return json.loads(state_path.read_text())


def products():
    with Load(Path(__file__).parent / "state") as load:
        return load.build_defs(Catalog())


def network():
    import socket
    socket.create_connection(("192.0.2.1", 80), timeout=2)
"""


@pytest.fixture(scope="module")
def program_pex(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A program on our own component, with the two modules of ours that it needs."""
    folder = tmp_path_factory.mktemp("program")
    package(folder / "src")
    here = Path(verify_at_start.__file__).parent
    for name in ("component.py", "verify_at_start.py"):
        write(folder / "src", {f"bundler/{name}": (here / name).read_bytes()})
    write(folder / "src", {"bundler/__init__.py": "", "shop/catalog.py": PROGRAM})
    shutil.rmtree(folder / "src" / PLACE)
    run_pex("-D", "src", "--venv", "-o", "app.pex", cwd=folder, root=folder / "build-root")
    state = StateDir(folder / "state", "shop/state")
    bundle = publish(state, {"Catalog[acme]": {"state": "[1, 2, 3]"}}).bundle
    embed_pex(folder / "app.pex", [bundle], RunRecord(), folder / "app.pex")
    return folder / "app.pex"


def test_a_program_on_our_component_loads(program_pex: Path, root: Path) -> None:
    (loaded,) = check(
        _runner(program_pex, root), LoadCheck(("shop.catalog:products",)), "app.pex", Listener()
    )
    assert loaded.states == {"Catalog[acme]": True}
    assert loaded.total == 3


def test_it_verifies_next_to_its_state_in_an_unpacked_pex(program_pex: Path, root: Path) -> None:
    program = (
        "import os, runpy, shop, sys\n"
        "sys.argv = [os.path.join(os.path.dirname(shop.__file__), 'state', '@verify.py')]\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')\n"
    )
    assert _runner(program_pex, root)(["-c", program], b"", {}).exit_code == 0
    for state in root.rglob("shop/state/Catalog__acme__/state"):
        state.write_text("[1]")
    done = _runner(program_pex, root)(["-c", program], b"", {})
    assert done.exit_code == 76
    assert b"Catalog__acme__/state does not match the manifest" in done.stderr


def test_there_is_no_network(program_pex: Path, root: Path) -> None:
    with pytest.raises(VerificationFailed, match="Network is unreachable"):
        check(
            _runner(program_pex, root), LoadCheck(("shop.catalog:network",)), "app.pex", Listener()
        )


def test_a_module_that_is_not_there_is_named(program_pex: Path, root: Path) -> None:
    with pytest.raises(VerificationFailed, match=r"No module named 'shop\.nothing'"):
        check(_runner(program_pex, root), LoadCheck(("shop.nothing",)), "app.pex", Listener())


# --- in an image --------------------------------------------------------------------------------


def test_a_program_in_an_image_loads_without_network(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = Path(verify_at_start.__file__).parent
    write(
        tmp_path / "app",
        {
            "bundler/__init__.py": "",
            "bundler/component.py": (here / "component.py").read_bytes(),
            "bundler/verify_at_start.py": (here / "verify_at_start.py").read_bytes(),
            "shop/__init__.py": "",
            "shop/catalog.py": PROGRAM,
        },
    )
    name = "sbt/load-check"
    (tmp_path / "Dockerfile").write_text(
        f'FROM {PYTHON_BASE}\nCOPY app /app\nWORKDIR /app\nUSER 1000\nENTRYPOINT ["false"]\n'
    )
    engine.docker("build", "-t", name, str(tmp_path))
    directory = StateDir(tmp_path / "state", "shop/state")
    bundle = publish(directory, {"Catalog[acme]": {"state": "[1, 2, 3]"}}).bundle
    docker = Docker(engine.clis[0], (), engine.environment)
    demanded = LoadCheck(("shop.catalog:products",), environment={"SHOP_TOKEN": "hunter22"})
    with pytest.raises(VerificationFailed, match=r"Catalog\[acme\] has no state"):
        check(image_runner(name, docker), demanded, name, Listener())
    made = embed_image(docker.connect(), name, [bundle], RunRecord())
    (loaded,) = check(image_runner(made.image_id, docker), demanded, name, Listener())
    assert (loaded.total, loaded.states) == (3, {"Catalog[acme]": True})
    # As the image's entrypoint, with nothing of ours but what is next to the manifest.
    entrypoint = ["--entrypoint", "python", made.image_id, "shop/state/@verify.py"]
    target = ["--load", "shop.catalog:products", "python", "-c", "print('started')"]
    started = engine.docker("run", "--rm", *entrypoint, *target)
    assert (started.stdout, started.stderr) == (b"started\n", b"")
    with pytest.raises(VerificationFailed, match="Network is unreachable"):
        check(image_runner(name, docker), LoadCheck(("shop.catalog:network",)), name, Listener())
    with pytest.raises(NotTried, match="could not be loaded"):
        check(image_runner("sbt/no-such-image", docker), demanded, name, Listener())
    ours, plain = ("ps", "--all", "--quiet", "--filter", f"ancestor={name}"), process.run

    def too_slow(argv: Sequence[str], **more: Any) -> Completed:
        if "rm" in argv:
            return plain(argv, **more)
        with subprocess.Popen(argv, env=engine.environment, stdin=subprocess.PIPE) as client:
            while not engine.docker(*ours).stdout:
                assert client.poll() is None
            client.kill()
        raise ToolFailed("too slow")

    monkeypatch.setattr("bundler.artifacts.image.engine.running.process.run", too_slow)
    with pytest.raises(ToolFailed, match="too slow"):
        image_runner(name, docker)(["-c", "import time; time.sleep(600)"], b"", {})
    monkeypatch.undo()
    while engine.docker(*ours).stdout:  # the engine may still be at it
        pass


@pytest.mark.parametrize(
    ("runs", "places", "expected"),
    [
        (RunsAs(), [], []),
        (RunsAs(program=("/app/.venv/bin/dagster", "api")), [], ["/app/.venv/bin"]),
        (RunsAs(program=("/bin/sh", "-c", "x")), [], []),
        (RunsAs("/app", program=("uv", "run", "dagster")), [], ["/app/.venv/bin"]),
        (RunsAs(environment=(("VIRTUAL_ENV", "/opt/venv"),)), [], ["/opt/venv/bin"]),
        (RunsAs(), ["/v/lib/python3.12/site-packages/shop/defs/.local_defs_state"], ["/v/bin"]),
        (RunsAs(), ["/usr/lib/python3/dist-packages/shop/defs/.local_defs_state"], []),
    ],
)
def test_the_interpreter_is_the_one_that_the_image_starts_with(
    runs: RunsAs, places: list[str], expected: list[str]
) -> None:
    paths = [f"{folder}/python" for folder in expected]
    assert interpreters(runs, places) == [*paths, "python", "python3"]


# --- as a user asks for it ----------------------------------------------------------------------


def test_build_and_update_refuse_what_does_not_load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    here = Path(verify_at_start.__file__).parent
    source = 'component = "shop.catalog:Catalog"\npath = "src/shop/state"\n'
    fetching = 'state_path.write_text(__import__("os").environ["PRODUCTS"])'
    write(
        tmp_path,
        {
            "pyproject.toml": f'[project]\nname = "shop"\n[[tool.state-bundler.source]]\n{source}',
            "src/shop/__init__.py": "",
            "src/shop/catalog.py": PROGRAM.replace(
                'raise SystemExit("a finished artifact asks nobody")', fetching
            ),
            "src/bundler/__init__.py": "",
            "src/bundler/component.py": (here / "component.py").read_bytes(),
            "src/bundler/verify_at_start.py": (here / "verify_at_start.py").read_bytes(),
        },
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PEX_ROOT", str(tmp_path / "pex-root"))
    monkeypatch.setenv("STATE_BUNDLER_PYTHON", sys.executable)
    check_it = ["--no-guard", "--load-check", "--load-module", "shop.catalog:products"]

    last_line: list[str] = []

    def reported(command: list[str], products: str, code: int) -> str:
        monkeypatch.setenv("PRODUCTS", products)
        found = run(cli, command)
        printed = capsys.readouterr()
        assert found == code, printed.err
        last_line[:] = printed.out.splitlines()[-1:]
        return printed.err

    build = ["build", "pex", "-o", "app.pex", *check_it]
    pex = ["--", "-D", "src", "--venv"]
    assert "loads only 2 definitions; --min-definitions requires 3" in reported(
        [*build, "--min-definitions", "3", *pex], "[1, 2]", 76
    )
    assert not (tmp_path / "app.pex").exists()
    assert "Loads 3 definitions" in reported([*build, *pex], "[1, 2, 3]", 0)
    before = (tmp_path / "app.pex").read_bytes()
    plain = ["build", "pex", "-o", "plain.pex", "--no-guard"]
    reported([*plain, *pex], "[1, 2, 3]", 0)
    assert last_line == ["  loaded: shop.catalog"]
    program = (tmp_path / "src/shop/catalog.py").read_text()
    (tmp_path / "src/shop/catalog.py").write_text("import nothing_of_this_name")
    (tmp_path / "plain.pex").rename(tmp_path / "good.pex")
    never = [*plain, "--state-from", "good.pex"]
    assert "No module named 'nothing_of_this_name'" in reported([*never, *pex], "", 76)
    assert not (tmp_path / "plain.pex").exists()
    reported([*never, "--no-load-check", *pex], "", 0)
    assert last_line == ["  not loaded: --no-load-check was given"]
    (tmp_path / "src/shop/catalog.py").write_text(program)
    (tmp_path / "src/bundler").rename(tmp_path / "library")
    reported([*plain, *pex], "[1, 2, 3]", 0)
    said = "  not loaded: it does not contain bundler; --load-check makes that an error"
    assert last_line == [said]
    (tmp_path / "library").rename(tmp_path / "src/bundler")
    shrinks = ["update", "app.pex", *check_it, "--allow-shrink", "Catalog[acme]"]
    assert "of that name has 3" in reported(shrinks, "[1, 2]", 76)
    assert (tmp_path / "app.pex").read_bytes() == before
    assert "Loads 4 definitions" in reported(["update", "app.pex", *check_it], "[1, 2, 3, 4]", 0)
