"""``build --each``: every project of a workspace, some concurrently, and one report of them."""

from __future__ import annotations

import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import NoReturn

import pytest

from bundler.artifacts.image.ociread import open_layout
from bundler.errors import UsageError
from bundler.refresh.forking import Start, of_process
from bundler.system import process
from bundler.workflows import build_all
from bundler.workflows.build_all import ProjectBuild, jobs_of, run_all
from bundler.workflows.status import of_names
from tests.support import forked
from tests.support.environments import ROOT
from tests.support.layouts import LayoutMaker, code_layer
from tests.support.workdir import WorkDir

_PROJECT = """\
[project]
name = "{name}"
version = "1"

[[tool.state-bundler.source]]
key = "Catalogue"
command = ["{python}", "-c", "{script}", "{{state_path}}"]
path = "src/{name}/state"
"""
_SECONDS = re.compile(r"\d+\.\d s")
_WRITES = "import sys; open(sys.argv[1], 'w').write('[1, 2]')"


def make_workspace(wd: WorkDir, scripts: dict[str, str]) -> None:
    """Projects without Dagster; each fetches by its own script."""
    wd.write("pyproject.toml", '[tool.uv.workspace]\nmembers = ["projects/*"]\n')
    wd.write(".gitignore", "/build\nstate\n")
    for name, script in scripts.items():
        text = _PROJECT.format(name=name, python=sys.executable, script=script)
        wd.write(f"projects/{name}/pyproject.toml", text)
    wd("git add .")
    wd.commit("projects")


def _build(wd: WorkDir, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **wd.env}
    return forked.said("state-bundler", "build", *arguments, cwd=wd.path, env=environment)


def test_each_is_built_and_one_that_fails_stops_no_other(wd: WorkDir) -> None:
    make_workspace(
        wd, {"orders": _WRITES, "broken": "import sys; sys.exit('no such table')", "stock": _WRITES}
    )
    done = _build(
        wd, "--each", "--workers", "2", "--report", "report.json",
        "oci", "-o", "{here}/build/{name}:1", "--attempts", "1",
    )  # fmt: skip
    assert done.returncode == 71, done.stderr
    assert "2 built, 1 failed." in done.stdout
    assert "broken" in done.stderr
    assert "no such table" in done.stderr
    names = [f"oci:{wd.path}/build/{name}:1" for name in ("orders", "stock")]
    assert [holder.failure for holder in of_names(names)] == [None, None]
    assert not (wd.path / "build/broken").exists()

    report = json.loads((wd.path / "report.json").read_text())["builds"]
    assert {build["name"]: build["exitCode"] for build in report} == {
        "broken": 71,
        "orders": 0,
        "stock": 0,
    }
    (broken,) = [build for build in report if build["exitCode"]]
    assert "no such table" in Path(broken["log"]).read_text()
    assert broken["why"].startswith("tool failed (71): Catalogue")
    assert "projects__broken" in broken["log"]


def test_a_wrong_option_is_the_reason_in_the_report(wd: WorkDir) -> None:
    make_workspace(wd, {"orders": _WRITES})
    done = _build(wd, "--each", "--report", "r.json", "oci", "-o", "image", "--atempts", "1")
    (build,) = json.loads((wd.path / "r.json").read_text())["builds"]
    assert (done.returncode, build["exitCode"]) == (2, 2)
    assert re.match(r"usage \(2\): .*'--atempts'", build["why"])


# As on a machine where a process cannot be forked safely.
_SEPARATE = """
from bundler.cli import main
from bundler.refresh.forking import Start
from bundler.workflows import build_all
Start.is_shareable = False
build_all.can_fork = lambda: False
main()
"""
_COUNTED = """
from bundler.cli import main
from bundler.refresh.forking import ForkServers
ask = ForkServers.pass_on
def pass_on(*arguments):
    answer = ask(*arguments)
    print("forked" if answer else "started", file=open("workers", "a"))
    return answer
ForkServers.pass_on = pass_on
main()
"""
_COMPONENT = """\
import json, os, sys
from bundler.component import DefsStateConfig, StateBackedComponent
{at_import}

class Stock(StateBackedComponent):
    defs_state_config = DefsStateConfig("Stock")

    def write_state_to_path(self, state_path):
        state = [os.getcwd(), sorted(os.environ), sorted(sys.modules), os.environ.get("REGION")]
        state_path.write_text(json.dumps(state))

    def build_defs_from_state(self, context, state_path):
        return None
"""


@pytest.mark.slow
def test_forked_builds_make_what_separate_ones_make(wd: WorkDir) -> None:
    """Each project has a package ``shop`` with its own code, one its own ``.env``, one crashes."""
    make_workspace(wd, {})
    source = '[[tool.state-bundler.source]]\ncomponent = "shop:Stock"\npath = "state"\n'
    for name, code in {
        "north": "a = 1",
        "south": "b = 2",
        "west": "",
        "east": "os._exit(3)",
    }.items():
        wd.write(f"projects/{name}/pyproject.toml", f'[project]\nname = "{name}"\n{source}')
        wd.write(f"projects/{name}/src/shop/__init__.py", _COMPONENT.format(at_import=code))
    wd.write("projects/west/.env", "REGION=west\n")
    arguments = ["build", "--each", "--workers", "1", "--report", "report.json", "oci"]
    arguments += ["-o", "{here}/build/{name}:1"]
    environment = {
        **os.environ, **wd.env, "PYTHONPATH": str(ROOT), "SOURCE_DATE_EPOCH": "1700000000",
        "DG_PROJECT_PYTHON_EXECUTABLE": sys.executable,
    }  # fmt: skip
    made = []
    for program in (_SEPARATE, _COUNTED):
        done = subprocess.run(
            [sys.executable, "-c", program, *arguments],
            cwd=wd.path, env=environment, check=False, capture_output=True, text=True,
        )  # fmt: skip
        assert "3 built, 1 failed." in done.stdout, done.stderr
        report = json.loads((wd.path / "report.json").read_text())
        logs = [Path(build["log"]).read_text() for build in report["builds"]]
        for build in report["builds"]:
            del build["seconds"]
        images = sorted(path.read_bytes() for path in wd.path.glob("build/*/index.json"))
        made.append((done.returncode, report, [_SECONDS.sub("", log) for log in logs], images))
        shutil.rmtree(wd.path / "build")
        for state in wd.path.glob("projects/*/state"):
            shutil.rmtree(state)
    separate, together = made
    assert together == separate
    # The first of its kind is not worth it, and another environment is another kind.
    workers = (wd.path / "workers").read_text().split()
    assert workers == ["started", "forked", "forked", "started"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind",
    ["docker", *(pytest.param(k, marks=pytest.mark.slow) for k in ("bake", "oci", "pex", "wheel"))],
)
def test_what_builds_share_can_be_imported_and_starts_no_thread(kind: str) -> None:
    code = f"""if True:
        from bundler.cli.build_all import _import_shared
        from bundler.system.process import can_fork
        _import_shared({kind!r})
        print(can_fork())
    """
    said = subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, text=True)
    assert said == f"{sys.platform == 'linux'}\n"


@pytest.mark.slow
def test_all_are_built_from_one_refresh(wd: WorkDir) -> None:
    scripts = {name: _WRITES.replace("1, 2", name) for name in ("11", "22")}
    make_workspace(wd, scripts)
    environment = {**os.environ, **wd.env}
    refresh = ("refresh", "--all", "-o", "build/states.tar")
    (wd.path / "build").mkdir()
    forked.said("state-bundler", *refresh, cwd=wd.path, env=environment)
    kind = ("oci", "-o", "{here}/build/{name}:1", "--state-from", "{here}/build/states.tar")
    done = _build(wd, "--each", *kind)
    assert done.returncode == 0, done.stderr
    for name, other in (("11", "22"), ("22", "11")):
        (image,) = of_names([f"oci:{wd.path}/build/{name}:1"])
        assert list(image.contents or ()) == [f"/{name}/state"]
        log = (wd.path / f"build/state-bundler/projects__{name}.log").read_text()
        assert f"left out: /{other}/state." in log


def _add_project_without_state(wd: WorkDir) -> None:
    source = '[[tool.state-bundler.source]]\ncomponent = "parts:every"\npath = "state"\n'
    wd.write("projects/plain/pyproject.toml", f'[project]\nname = "plain"\n{source}')
    wd.write("projects/plain/parts.py", "def every():\n    return []\n")
    wd("git add .")
    wd.commit("plain")


def test_a_project_without_state_fails_no_fleet(wd: WorkDir) -> None:
    make_workspace(wd, {"orders": _WRITES})
    _add_project_without_state(wd)
    done = _build(wd, "--each", "oci", "-o", "build/{name}:1")  # relative to each project
    assert done.returncode == 0, done.stderr
    assert "2 built, 0 failed." in done.stdout
    assert "none (no state)" in done.stdout
    assert f" oci:{wd.path}/projects/orders/build/orders:1 sha256:" in done.stdout
    assert (wd.path / "projects/orders/build/orders").exists()
    assert not (wd.path / "projects/plain/build").exists()
    alone = _build(wd, "oci", "--project", "projects/plain", "-o", "build/plain")
    assert alone.returncode == 2
    assert "There is no state to embed." in alone.stderr


@pytest.mark.parametrize("kind", ["image", "index"])
def test_without_state_the_base_is_copied_as_it_is(wd: WorkDir, kind: str) -> None:
    _add_project_without_state(wd)
    layout = LayoutMaker(wd.path / "base")
    entry = layout.manifest([code_layer()])
    if kind == "index":
        platform = {"os": "linux", "architecture": "amd64"}
        entry = layout.index([{**entry, "platform": platform}, layout.attestation()])
    layout.tag(entry)
    project = ("--project", "projects/plain")
    done = _build(wd, "oci", *project, "--base", "base", "-o", "build/plain:1")
    assert done.returncode == 0, done.stderr
    assert "No component has state to embed: the artifact is built without state." in done.stderr
    (made,) = json.loads((wd.path / "build/plain/index.json").read_text())["manifests"]
    assert made["digest"] == entry["digest"]
    with open_layout(wd.path / "build/plain") as image:
        assert {path for path, _ in image.image.tree.walk()} >= {"/app/src/shop/defs/__init__.py"}
        assert image.state_directories() == []


def test_what_would_be_one_artifact_is_refused(wd: WorkDir) -> None:
    make_workspace(wd, {"orders": _WRITES, "stock": _WRITES})
    done = _build(wd, "--each", "oci", "-o", "{here}/build/image")
    assert done.returncode == 2
    assert "{name}" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--each",), "Missing artifact kind"),
        (("--workers", "2", "oci", "-o", "x"), "require --each"),
        (("--report", "x", "oci", "-o", "x"), "require --each"),
    ],
)
def test_usage(wd: WorkDir, arguments: tuple[str, ...], says: str) -> None:
    make_workspace(wd, {"orders": _WRITES})
    done = _build(wd, *arguments)
    assert done.returncode == 2
    assert says in done.stderr + done.stdout


def test_names_and_paths_are_filled_in(tmp_path: Path) -> None:
    roots = [tmp_path / "a/shop", tmp_path / "b/shop"]
    with pytest.raises(UsageError, match="b/shop \\(named shop\\) would write the same"):
        jobs_of(roots, ["build"], ["pex", "-o", "{here}/{name}.pex"], tmp_path, tmp_path / "logs")
    arguments = ["pex", "-o", "{here}/{path}.pex"]
    jobs = jobs_of(roots, ["build"], arguments, tmp_path, tmp_path / "logs")
    assert [job.argv[-1] for job in jobs] == [f"{root}.pex" for root in roots]
    assert [job.log.name for job in jobs] == ["a__shop.log", "b__shop.log"]


@pytest.mark.parametrize(
    ("arguments", "is_refused"),
    [
        ("docker -f {path}/Dockerfile -t shop:1 {here}", True),
        ("docker -f {path}/Dockerfile -qtshop:1 {here}", True),
        ("docker -t shop/{path}:1 -t shop:latest .", True),
        ("docker --label of={path} --push -o type=image,name=shop .", True),
        ("docker -t shop/{path}:1 --iidfile {here}/id .", True),
        ("docker -t shop/{name}:1 --build-arg FROM={path} .", True),
        ("docker -t shop/{path}:1 --iidfile id .", False),
        ("docker --label of={path} .", False),
        ("docker .", True),
        ("oci -o {here}/image --environment {path}", True),
        ("oci -o image", False),
        ("pex --output=app.pex -- -D src", False),
        ("wheel", False),
        ("wheel -o {here}/dist --environment {path}", True),
        ("wheel -o {here}/dist/{path}", False),
        ("bake --set *.args.FROM={path}", False),
        ("bake --set *.args.FROM=https://127.0.0.1/base", False),
        ("bake --set *.tags=shop:1", True),
        ("bake --set=app.tags+=shop:1 --set *.args.FROM={path}", True),
        ("bake --set *.tags=shop/{path}:1", False),
        ("bake --set *.output=type=oci,dest={here}/image.tar", True),
        ("bake --set *.output=type=oci,dest=image.tar", False),
        ("bake", False),
        ("bake -f shop.hcl --file=common.hcl app", False),
        ("bake -f {here}/docker-bake.hcl app", True),
        ("bake https://127.0.0.1/definitions.git app", True),
        ("bake --metadata-file {here}/bake.json", True),
    ],
)
def test_two_projects_with_one_name_never_write_one_artifact(
    arguments: str, is_refused: bool, tmp_path: Path
) -> None:
    """Neither does any part of the arguments that only has the path in it hide that."""
    roots = [tmp_path / "a/shop", tmp_path / "b/shop"]
    with pytest.raises(UsageError) if is_refused else nullcontext():
        jobs_of(roots, ["build"], arguments.split(), tmp_path, tmp_path / "logs")


def test_two_names_of_one_wheel(tmp_path: Path) -> None:
    roots = [tmp_path / "x-a", tmp_path / "X_.a"]
    with pytest.raises(UsageError, match="would write the same artifact"):
        jobs_of(roots, ["build"], ["wheel", "-o", "{here}/dist"], tmp_path, tmp_path)
    jobs_of(roots, ["build"], ["wheel", "-o", "{here}/dist/{name}"], tmp_path, tmp_path)


def test_each_project_has_its_own_log(tmp_path: Path) -> None:
    paths = ["a/b", "a__b", "a__b_", "a/b_"]
    roots = [tmp_path / path for path in paths]
    jobs = jobs_of(roots, [], ["oci", "-o", "image"], tmp_path, tmp_path)
    assert len({job.log for job in jobs}) == len({job.result for job in jobs}) == len(paths)


@pytest.mark.slow
def test_no_more_than_the_workers_run_concurrently(tmp_path: Path) -> None:
    running = tmp_path / "running"
    running.mkdir()
    script = (
        f"import os, sys, time; me = '{running}/' + sys.argv[1]; open(me, 'w').close();"
        f"time.sleep(0.3); print(len(os.listdir('{running}'))); os.unlink(me)"
    )
    jobs = [
        ProjectBuild(
            str(number), tmp_path, (sys.executable, "-c", script, str(number)), tmp_path / "log"
        )
        for number in range(6)
    ]
    outcomes = run_all(jobs, 2, lambda _: None)
    assert max(int(outcome.said) for outcome in outcomes) == 2
    assert [outcome.job.name for outcome in outcomes] == [job.name for job in jobs]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_removes_its_build(wd: WorkDir, number: int) -> None:
    make_workspace(
        wd, {"slow": f"import os, time; open('{wd.path}/pid', 'w').write(str(os.getpid()));"
                     " time.sleep(60)"},
    )  # fmt: skip
    with subprocess.Popen(
        [sys.executable, "-m", "bundler", "build", "--each", "oci", "-o", "build/{name}"],
        cwd=wd.path, env={**os.environ, **wd.env},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        # A shell lets what it starts with & ignore SIGINT, and so would this.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509  # no threads
    ) as process:  # fmt: skip
        pid = wd.path / "pid"
        deadline = time.monotonic() + 60
        while not (pid.exists() and pid.read_text()) and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(number)
        process.communicate(timeout=60)
    assert process.returncode == 128 + number
    deadline = time.monotonic() + 5
    while _alive(int(pid.read_text())) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _alive(int(pid.read_text()))


def test_an_interrupt_reaches_a_build_that_waits_for_an_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def asks(_: object) -> int:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        with of_process() as forks:
            forks.fork(Start.of(tmp_path / "python", "component", {}), tmp_path, (0, 1, 2))
        return 0

    def interrupted(running: list[build_all._Run], _: object) -> None:
        select.select([run.child for run in running], [], [])
        raise KeyboardInterrupt

    monkeypatch.setattr(build_all, "can_fork", lambda: True)
    monkeypatch.setattr(build_all, "_serve", interrupted)
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run_all([ProjectBuild("shop", tmp_path, (), tmp_path / "log")], 1, print, build=asks)
    assert time.monotonic() - began < process._ENDING_SECONDS


@pytest.mark.parametrize(
    ("error", "exit_code"),
    [(OSError("no room"), 70), (SystemExit("no room"), 70), (SystemExit(143), 143)],
)
def test_a_fork_that_fails_says_why(error: BaseException, exit_code: int, tmp_path: Path) -> None:
    def fails() -> int:
        raise error

    log = tmp_path / "log"
    logged = process.Logged((), log, cwd=tmp_path, env={}, forked=fails)
    assert logged.process.wait() == exit_code
    assert logged.end() == b""
    assert log.read_text() == f"{type(error).__name__}: {error}\n"


def test_without_proc_nothing_is_forked(monkeypatch: pytest.MonkeyPatch) -> None:
    def listdir(path: str) -> NoReturn:
        raise FileNotFoundError(path)

    monkeypatch.setattr(os, "listdir", listdir)
    assert not process.can_fork()


def test_where_no_process_can_be_forked_a_build_is_separate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fork() -> NoReturn:
        raise BlockingIOError

    monkeypatch.setattr(os, "fork", fork)
    monkeypatch.setattr(build_all, "can_fork", lambda: True)
    job = ProjectBuild("shop", tmp_path, ("echo", "separate"), tmp_path / "log")
    (outcome,) = run_all([job], 1, lambda _: None, build=lambda _: 70)
    assert (outcome.exit_code, outcome.said) == (0, "separate")


def _alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def test_a_signal_before_the_fork_has_its_session_ends_only_the_fork(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fork = os.fork

    def fork_with_signal() -> int:
        pid = fork()
        if not pid:
            os.kill(os.getpid(), signal.SIGTERM)
        return pid

    def leave(number: int, _: object) -> NoReturn:
        raise SystemExit(128 + number)

    monkeypatch.setattr(os, "fork", fork_with_signal)
    before = signal.signal(signal.SIGTERM, leave)
    try:
        logged = process.Logged((), tmp_path / "log", cwd=tmp_path, env={}, forked=lambda: 0)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert logged.process.wait() == 143
    logged.end()
    assert "SystemExit: 143" in (tmp_path / "log").read_text()
