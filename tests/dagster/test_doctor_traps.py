"""Sets up every trap in docs/explanation/doctor.md, which the check named there must find."""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import tomlkit

from bundler.artifacts.image.engine.dockerbuild import Builder
from bundler.cli.console import Console
from bundler.errors import BundlerError, ConfigurationError
from bundler.listener import SILENT
from bundler.project.survey import survey
from bundler.refresh.model import Component, Found, Looked
from bundler.setup.doctor import (
    DoctorContext,
    Finding,
    build,
    checks,
    commits,
    components,
    compose,
    credentials,
    docker,
    environment,
    packaging,
    repository,
    state,
)
from tests.support.bundles import make_bundle
from tests.support.environments import ROOT
from tests.support.pasted import paste_table
from tests.support.workdir import WorkDir

_STATE = "src/shop/defs/.local_defs_state"
_PYPROJECT = """\
[project]
name = "shop"
version = "1"
[build-system]
requires = []
build-backend = "{backend}"
[tool.dg.project]
root_module = "shop"
"""


@dataclass(frozen=True)
class Trap:
    """name: as the table has it. files: what is in the project. says: what the finding names."""

    name: str
    look: Callable[[DoctorContext], Iterator[Finding]]
    says: str
    grade: str
    files: Mapping[str, str] = field(default_factory=dict)
    backend: str = "hatchling.build"
    more: str = ""


def _of(
    *found: Component, warnings: tuple[str, ...] = (), version: str = "dagster 1.13"
) -> Callable[[DoctorContext], Iterator[Finding]]:
    """The judgement of components that a discovery found."""

    def look(patient: DoctorContext) -> Iterator[Finding]:
        directory = patient.survey.root / _STATE
        return components.judge(Found(directory, "shop", found, version, warnings))

    return look


def _with(*found: Component) -> Callable[[DoctorContext], Iterator[Finding]]:
    """What is said of the variables where the components were loaded."""

    def look(patient: DoctorContext) -> Iterator[Finding]:
        _load(patient, Looked((Found(patient.survey.root / _STATE, "shop", found),)))
        return credentials.credentials(patient)

    return look


def _load(patient: DoctorContext, outcome: Looked | BundlerError) -> None:
    """Gives the outcome of a load, which is kept for all checks."""
    vars(patient)["_looked"] = outcome


def _local(key: str, **more: tuple[str, ...] | bool | str) -> Component:
    return Component(key, "LOCAL_FILESYSTEM", "shop.Foo", **more)  # type: ignore[arg-type]  # fields


def _docker(name: str, line: str, says: str, grade: str = "warn") -> Trap:
    return Trap(name, docker.dockerfiles, says, grade, {"Dockerfile": f"FROM x\n{line}\n"})


def _ignore(name: str, text: str, says: str, grade: str) -> Trap:
    files = {"Dockerfile": "FROM x\n", ".dockerignore": text, ".env": "", ".venv/pyvenv.cfg": ""}
    return Trap(name, docker.context, says, grade, files)


_HATCH = "[tool.hatch.build]\n"
_IGNORED = {".gitignore": ".local_defs_state\n"}
TRAPS = (
    # the repository
    Trap("no rule that every clone has", repository.guard, _STATE, "warn",
         {f"{_STATE}/.gitignore": "*\n", f"{_STATE}/Foo/state": "[1, 2, 3]"}),
    Trap("state in the index", repository.guard, f"{_STATE}/Foo/state", "fail",
         {f"{_STATE}/Foo/state": "[1, 2, 3]"}),
    Trap("no hook runs the guard", commits.commits, "No hook runs", "warn"),
    Trap("pre-commit without the guard", commits.commits, ".pre-commit-config.yaml", "warn",
         {".pre-commit-config.yaml": "repos: []\n"}),
    Trap("pre-commit is not installed in the clone", commits.commits,
         "not installed in this clone", "warn",
         {".pre-commit-config.yaml": "repos:\n- hooks: [{id: no-committed-state}]\n"}),
    # the configuration and the environment
    Trap("a setting that does not exist", environment.configuration, "tiemout", "fail",
         more='[tool.state-bundler]\ntiemout = "5m"\n'),
    Trap("Dagster is not installed in the interpreter", environment.interpreter,
         "is not installed", "fail", {"src/shop/defs/defs.yaml": "type: vendor.Unknown\n"}),
    Trap("a secret too short to be found in a state", credentials.credentials, "TRAP_TOKEN", "warn",
         {".env": "TRAP_TOKEN=x1!\n"}),
    Trap("a baseline that cannot be read", build.build, "nowhere.pex", "fail",
         more='[tool.state-bundler]\nbaseline = "./nowhere.pex"\n'),
    Trap("an image-path that is not absolute", build.build, "not absolute", "fail",
         more='[tool.state-bundler]\nimage-path = "app/src"\n'),
    # components
    Trap("a variable that is not set", _with(_local("Foo", location="src/shop/defs/a/defs.yaml")),
         "TRAP_TOKEN", "warn",
         {"src/shop/defs/a/defs.yaml": "attributes:\n  token: '{{ env.TRAP_TOKEN }}'\n"}),
    Trap("keys that share a folder", _of(_local("Foo[a/b]"), _local("Foo[a:b]")),
         "share one folder", "fail"),
    Trap("a key that leads out of the state directory", _of(_local("..")), "'..'", "fail"),
    Trap("a key made of a variable", _of(_local("Foo[x]", key_variables=("TRAP_URL",))),
         "TRAP_URL", "warn"),
    Trap("a component that dg does not list", _of(_local("Foo"), warnings=("Foo is passed over.",)),
         "passed over", "warn"),
    Trap("a component whose state is fetched at every load",
         _of(Component("Foo", "LEGACY_CODE_SERVER_SNAPSHOTS", "shop.Foo")), "LEGACY", "warn"),
    Trap("a component that never reads its state",
         _of(_local("Foo", unread="build_defs_from_state of a.B does not read state_path")),
         "seems to ignore its state", "warn"),
    Trap("development overwrites refreshed state", _of(_local("Foo", refresh_if_dev=True)),
         "In development", "ok"),
    Trap("no component at all", _of(), "no state-backed component", "warn"),
    Trap("the state of a removed key", _of(_local("Foo")), "Gone", "warn",
         {f"{_STATE}/Gone/state": "[1]"}),
    # the state directory
    Trap("a source's path that contains other files", state.state, "did not write", "fail",
         {"data/raw/a.csv": "x", ".gitignore": "/data\n"},
         more='[[tool.state-bundler.source]]\nkey = "a"\ncommand = ["true"]\npath = "data"\n'),
    Trap("a publish that was interrupted", state.state, "was interrupted", "fail",
         {f"{_STATE}/@staging/journal.json": "{}", ".gitignore": ".local_defs_state\n"}),
    # the wheel
    Trap("a backend that leaves out what git ignores", packaging.backend, "hatchling", "fail",
         {".gitignore": ".local_defs_state\n"}),
    Trap("a setting that excludes the state", packaging.backend, "hatchling excludes", "fail",
         more=f'{_HATCH}exclude = ["**/.local_defs_state/**"]\n'),
    Trap("a backend that includes the state by accident", packaging.backend, "only as long as",
         "warn"),
    Trap("setuptools and poetry always leave it out", packaging.backend, "setuptools excludes",
         "fail", backend="setuptools.build_meta"),
    Trap("hatch's include instead of artifacts", packaging.backend, "include does not", "fail",
         _IGNORED, more=f'{_HATCH}include = ["src/shop", "**/.local_defs_state/**"]\n'
         '[tool.hatch.build.targets.wheel]\npackages = ["src/shop"]\n'),
    Trap("hatch's artifacts without wildcards", packaging.backend, "artifacts does not", "fail",
         _IGNORED, more=f'{_HATCH}artifacts = [".local_defs_state/**"]\n'),
    Trap("hatch's artifacts for the wheel only", packaging.backend,
         "targets.wheel] artifacts does not", "fail", _IGNORED,
         more='[tool.hatch.build.targets.wheel]\nartifacts = ["**/.local_defs_state/**"]\n'),
    Trap("setuptools' **/*, which skips dot directories", packaging.backend, "does not change",
         "fail", backend="setuptools.build_meta",
         more='[tool.setuptools.package-data]\n"*" = ["**/.local_defs_state/**"]\n'),
    Trap("states of deleted keys in build/lib", packaging.backend, "build/lib", "fail",
         {"build/lib/shop/defs/.local_defs_state/Old/state": "[]"}, "setuptools.build_meta"),
    Trap("credentials in the package", build.build, "src/shop/.env contains", "warn",
         {"src/shop/.env": ""}),
    # Docker
    _docker("a refresh in a RUN", "RUN dg utils refresh-defs-state", "Dockerfile:2"),
    _docker("a refresh in a RUN with a mounted secret",
            "RUN --mount=type=secret,id=t dg utils refresh-defs-state", "Dockerfile:2"),
    _docker("a token passed by ARG", "ARG API_TOKEN", "API_TOKEN"),
    _docker("the state copied by name", f"COPY {_STATE} /x", "Dockerfile:2", "fail"),
    _docker("COPY with a wildcard", "COPY src/shop/defs/* /app/defs/", "src/shop/defs/*"),
    _docker("a volume over the code", "WORKDIR /app/src\nVOLUME /app", "/app"),
    Trap("a Compose mount over the code", compose.compose, "mounts src over /app/src", "warn",
         {"Dockerfile": "FROM x\nWORKDIR /app\nCOPY . .\n",
          "compose.yaml": "services: {web: {build: ., volumes: ['./src:/app/src']}}\n"}),
    _ignore("an ignore file that does not name the state", ".env\n", _STATE, "warn"),
    _ignore("an ignore file that leaves out pyproject.toml", "**/.local_defs_state\n.env\n*.toml\n",
            "pyproject.toml", "fail"),
    _ignore("credentials in the context", "**/.local_defs_state\n", ".env", "warn"),
    Trap("git-ignored files in a copied folder", docker.context, "_version.py", "warn",
         {"Dockerfile": "FROM x\nCOPY src src\n", ".gitignore": "_version.py\n",
          ".dockerignore": "x", "src/shop/_version.py": ""}),
    _ignore("this machine's environment in the context", ".env\n", ".venv", "warn"),
    Trap("an instruction that needs BuildKit, without BuildKit",
         lambda patient: docker.without_buildkit(patient, lambda: Builder("classic", "28.2.2")),
         "requires BuildKit", "fail",
         {"Dockerfile": "FROM x\nRUN --mount=type=cache,target=/c true\n"}),
)  # fmt: skip


@pytest.mark.parametrize("trap", TRAPS, ids=lambda trap: trap.name)
def test_the_trap_is_found(trap: Trap, wd: WorkDir, monkeypatch: pytest.MonkeyPatch) -> None:
    _set(trap, wd, monkeypatch)
    findings = _found(trap, wd.path)
    assert findings, list(_asked(trap, wd.path))
    assert findings[0].why or findings[0].grade != "fail" or findings[0].fix
    mending = [check.look for check in checks() if check.is_fixable]  # all that --fix asks
    assert not findings[0].part or trap.look in mending


def _set(trap: Trap, wd: WorkDir, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in wd.env.items():
        monkeypatch.setenv(name, value)
    for name in ("TRAP_TOKEN", "CI"):
        monkeypatch.delenv(name, raising=False)
    wd.write("pyproject.toml", _PYPROJECT.format(backend=trap.backend) + trap.more)
    wd.write("src/shop/__init__.py", "")
    wd.write("src/shop/defs/__init__.py", "")
    for path, text in trap.files.items():
        wd.write(path, text)
    wd("git add .")
    if trap.name == "state in the index":
        wd("git add --force src")


def _found(trap: Trap, root: Path) -> list[Finding]:
    return [
        finding
        for finding in _asked(trap, root)
        if trap.says in finding.what and finding.grade == trap.grade
    ]


def _asked(trap: Trap, root: Path) -> Iterator[Finding]:
    """As `examine` asks: an expected failure is a finding."""
    from bundler.setup.doctor import Check

    patient = DoctorContext(survey(root), Path(sys.executable))
    return Check(trap.name, trap.look).answers(patient, set(), SILENT)


# --- the fixes that are printed ---------------------------------------------------------------

# For these no line can be pasted: a message says what to do, or the finding says it all.
_TAKES_A_PERSON = {
    "a setting that does not exist",
    "Dagster is not installed in the interpreter",
    "a variable that is not set",
    "a baseline that cannot be read",
    "keys that share a folder",
    "a key that leads out of the state directory",
    "a key made of a variable",
    "a component that dg does not list",
    "a component whose state is fetched at every load",
    "a component that never reads its state",
    "a Compose mount over the code",
    "development overwrites refreshed state",
    "no component at all",
    "the state of a removed key",
    "a source's path that contains other files",
    "a publish that was interrupted",
    "a refresh in a RUN",
    "a refresh in a RUN with a mounted secret",
    "a token passed by ARG",
    "the state copied by name",
    "COPY with a wildcard",
    "a volume over the code",
    "credentials in the package",
    "an instruction that needs BuildKit, without BuildKit",
}


# A list in these gets another line; in all other files a fix only adds lines.
_WRITTEN_ANEW = {"pyproject.toml", ".pre-commit-config.yaml"}


def _source(path: str) -> str:
    key, value = (
        '[[tool.state-bundler.source]]\nkey = "a"\ncommand = ["true"]\n',
        tomlkit.item(path),
    )
    return f"{key}path = {value.as_string()}\n"


# The same traps, where the file that gets the fix has something in it already.
_MORE = (
    Trap("poetry", packaging.backend, "poetry excludes", "fail", backend="poetry.core.masonry.api"),
    Trap("poetry that includes something", packaging.backend, "poetry excludes", "fail",
         backend="poetry.core.masonry.api",
         more='[tool.poetry]\ninclude = ["a.txt", { path = "b", format = "sdist" }]\n'),
    Trap("hatch with other artifacts", packaging.backend, "hatchling", "warn",
         more=f"{_HATCH}artifacts = ['a\\b\"c', \"*.so\"] # kept\n"),
    Trap("a source of any name", packaging.backend, "hatchling", "warn",
         more=_source("src/shop/it's a \"name\" ü")),
    Trap("secrets that are not secret", credentials.credentials, "TRAP_TOKEN", "warn",
         {".env": "TRAP_TOKEN=x1!\n"},
         more='[tool.state-bundler]\ntimeout = "5m"\nnot-secrets = ["OTHER_TOKEN"]\n'),
    _ignore("no end of the last line", ".env", _STATE, "warn"),
    _ignore("the last rule decides", "**/.local_defs_state\n.env\n!.env\n", ".env", "warn"),
    _ignore("Windows' line ends", ".venv\r\n.env", _STATE, "warn"),
    Trap("a context with a source of any name", docker.context, "st[a]r", "warn",
         {"Dockerfile": "FROM x\n", ".dockerignore": ".git\n**/.local_defs_state"},
         more=_source("src/shop/st[a]r it's ü")),
    Trap("no ignore file yet", docker.context, _STATE, "warn", {"Dockerfile": "FROM x\n"}),
    Trap("the Dockerfile's own ignore file", docker.context, "Dockerfile.dockerignore", "warn",
         {"Dockerfile": "FROM x\n", "Dockerfile.dockerignore": "x", ".dockerignore": "y"}),
)  # fmt: skip


@pytest.mark.parametrize(
    ("trap", "where"),
    [
        pytest.param(trap, where, id=f"{trap.name}-{where}")
        for trap in (*TRAPS, *_MORE)
        for where in (".", "src/shop", "..")
        # A table that is printed does not depend on where that is, and each of these builds wheels.
        if where == "." or trap.look != packaging.backend or "build/lib" in trap.says
    ],
)
def test_a_fix_that_is_printed_cures_what_it_was_printed_for(
    trap: Trap, where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = WorkDir.make(tmp_path / "a project's folder")
    _set(trap, project, monkeypatch)
    here = WorkDir((project.path / where).resolve(), project.env)
    monkeypatch.chdir(here.path)
    (finding, *_) = _found(trap, project.path)
    before = _lines(project.path)
    fix = _printed(finding)
    if trap.name in _TAKES_A_PERSON:
        is_command = fix.startswith("Run: state-bundler ")
        assert not fix or is_command or (fix[0].isupper() and fix.endswith((".", "?")))
        assert "\n" not in fix
        return
    _paste(fix, here, project.path)
    assert finding.what not in [each.what for each in _asked(trap, project.path)]
    lost = {path for path, _ in before - _lines(project.path)}
    assert {path for path in lost if not path.startswith("build/lib/")} <= _WRITTEN_ANEW


def _printed(finding: Finding) -> str:
    """The fix, as it stands on the screen."""
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="utf-8")
    Console(stream, {}).reason("", finding.fix, indent="    ")
    return raw.getvalue().decode().removeprefix("    Fix: ").removesuffix("\n")


def _paste(fix: str, here: WorkDir, project: Path) -> None:
    """A command goes to the shell, a table into the file that the line above it names."""
    if "\n" in fix:
        paste_table(fix, project / "pyproject.toml")
    else:
        here.run(["sh", "-c", fix])  # `doctor --fix` fails for what it could not fix


def _lines(root: Path) -> set[tuple[str, str]]:
    return {
        (path.relative_to(root).as_posix(), line)
        for path in root.rglob("*")
        if path.is_file() and ".git" not in path.relative_to(root).parts
        for line in path.read_text().splitlines()
    }


@pytest.mark.parametrize(
    ("script", "variables"),
    [
        ("mise exec -- prek run", {}),
        ("state-guard --staged", {}),
        ("pre-commit is what this file is called", {"CI": "true"}),
    ],
)
def test_pre_commit_that_something_starts_is_not_a_trap(
    script: str, variables: Mapping[str, str], wd: WorkDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CI", raising=False)
    for name, value in {**wd.env, **variables}.items():
        monkeypatch.setenv(name, value)
    wd.write("pyproject.toml", _PYPROJECT.format(backend="hatchling.build"))
    wd.write(
        ".pre-commit-config.yaml", "repos: [{repo: local, hooks: [{id: no-committed-state}]}]\n"
    )
    wd.write("shared/hooks/pre-commit", script).chmod(0o755)
    wd("git config core.hooksPath shared/hooks")
    (finding,) = commits.commits(DoctorContext(survey(wd.path)))
    assert finding.grade == "ok"


def test_a_published_state_that_was_edited(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(_PYPROJECT.format(backend="hatchling.build"))
    make_bundle(tmp_path / _STATE, {"Foo": {"state": b"{}"}})
    (tmp_path / _STATE / "Foo/state").write_text("[]")
    (finding,) = state.state(DoctorContext(survey(tmp_path)))
    assert finding.grade == "fail"


@pytest.mark.parametrize("where", [".", ".."])
def test_the_fix_of_a_published_state_that_was_edited(
    where: str, wd: WorkDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = wd.at("a project's folder")
    command = 'command = ["sh", "-c", "echo \'[1, 2]\' > \\"$1\\"", "sh", "{state_path}"]'
    project.write("pyproject.toml", _source("states").replace('command = ["true"]', command))
    wd.write(".gitignore", "states\n")
    refresh = [sys.executable, "-m", "bundler", "refresh", f"--python={sys.executable}"]
    project(refresh)
    project.write("states/a/state", "[]")
    here = (project.path / where).resolve()
    monkeypatch.chdir(here)
    (finding,) = state.state(DoctorContext(survey(project.path)))
    assert finding.grade == "fail"
    WorkDir(here, wd.env)(["sh", "-c", _printed(finding)])
    (cured,) = state.state(DoctorContext(survey(project.path)))
    assert cured.grade == "ok"


@pytest.mark.parametrize(
    "files",
    [
        {"src/shop/defs/a/defs.yaml": "token: '{{ env('TRAP_TOKEN', 'x') }}'\n"},
        {".env": "TRAP_TOKEN=of-some-length\n", "src/a/defs.yaml": "a: '{{ env.TRAP_TOKEN }}'\n"},
    ],
)
def test_a_variable_with_a_default_or_in_the_env_file_is_not_a_trap(
    files: Mapping[str, str], wd: WorkDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TRAP_TOKEN", raising=False)
    wd.write("pyproject.toml", _PYPROJECT.format(backend="hatchling.build"))
    for path, text in files.items():
        wd.write(path, text)
    patient = DoctorContext(survey(wd.path), Path(sys.executable))
    assert [finding.grade for finding in credentials.credentials(patient)] == ["ok"]


_PLAIN = "src/shop/defs/plain/defs.yaml"
_STATEFUL = "src/shop/defs/stateful/defs.yaml"
_REFERS = "type: shop.X\nattributes:\n  token: '{{ env.TRAP_TOKEN }}'\n"
_LOADED = Looked((Found(Path("/x"), "shop", (_local("Foo", location=_STATEFUL),)),))


@dataclass(frozen=True)
class Unset:
    files: Sequence[str]
    outcome: Looked | BundlerError
    grade: str
    says: str


@pytest.mark.parametrize(
    "unset",
    [
        Unset([_PLAIN], _LOADED, "ok", "no refresh needs it"),
        Unset([_STATEFUL], _LOADED, "warn", "Foo loads without it"),
        Unset([_PLAIN, _STATEFUL], _LOADED, "warn", "Foo loads without it"),
        Unset([_PLAIN], ConfigurationError("TRAP_TOKEN is not set."), "fail", "cannot be loaded"),
        Unset([_PLAIN], ConfigurationError("NO_TRAP_TOKEN_2 is set."), "warn", "may be the reason"),
        Unset([_STATEFUL], ConfigurationError("a is not a string."), "warn", "may be the reason"),
    ],
)
def test_what_an_unset_variable_does_is_what_the_load_has_shown(
    unset: Unset, wd: WorkDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TRAP_TOKEN", raising=False)
    wd.write("pyproject.toml", _PYPROJECT.format(backend="hatchling.build"))
    for path in unset.files:
        wd.write(path, _REFERS)
    patient = DoctorContext(survey(wd.path), Path(sys.executable))
    _load(patient, unset.outcome)
    (finding,) = credentials.credentials(patient)
    assert finding.grade == unset.grade
    assert unset.says in finding.what + finding.why


def test_the_table_in_the_documentation_names_these_traps() -> None:
    text = (ROOT / "docs/explanation/doctor.md").read_text()
    table = text.partition("<!-- traps -->")[2].partition("<!-- end -->")[0]
    rows = re.findall(r"^\| (.+?) \| .+ \| (.+?) \|$", table, re.MULTILINE)[1:]
    named = {name: check for name, check in rows if not set(name) <= {"-", "|"}}
    assert list(named) == [*(trap.name for trap in TRAPS), "a published state that was edited"]
