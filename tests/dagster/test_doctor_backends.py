"""What `doctor` says of a build backend's configuration, tried with the real backends."""

from __future__ import annotations

import os
import select
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from bundler.project.survey import survey
from bundler.setup.doctor import DoctorContext, Finding, packaging, probe
from tests.support.environments import python_of
from tests.support.workdir import WorkDir

pytestmark = pytest.mark.slow

_BACKENDS = {
    "flit": ("flit_core", "flit_core.buildapi"),
    "hatch": ("hatchling", "hatchling.build"),
    "hatch-vcs": ("hatchling', 'hatch-vcs", "hatchling.build"),
    "pdm": ("pdm-backend", "pdm.backend"),
    "poetry": ("poetry-core", "poetry.core.masonry.api"),
    "setuptools": ("setuptools>=61", "setuptools.build_meta"),
    "setuptools-scm": ("setuptools', 'setuptools-scm", "setuptools.build_meta"),
    "uv": ("uv_build", "uv_build"),
}
_RULE = {".gitignore": ".local_defs_state\n"}


@dataclass(frozen=True)
class Case:
    """name: the backend's, then what is special. grade: of the finding, which has `says` in it.

    tables: of pyproject.toml. files: besides the package, by their path from the top of the
    repository. package: where it is in the project. project: where that is in the repository.
    """

    name: str
    grade: str
    tables: str = ""
    says: str = ""
    files: Mapping[str, str] = field(default_factory=lambda: _RULE)
    package: str = "src/shop"
    project: str = "."
    head: str = 'version = "1"\n'

    def make(self, top: Path) -> Path:
        requires, backend = _BACKENDS[self.name.split()[0]]
        root = top / self.project
        text = (
            f"[build-system]\nrequires = ['{requires}']\nbuild-backend = '{backend}'\n"
            f'[project]\nname = "shop"\ndescription = "A shop"\n{self.head}'
            f'[tool.dg.project]\nroot_module = "shop"\n{self.tables}'
        )
        files = {
            f"{self.project}/pyproject.toml": text,
            f"{self.project}/{self.package}/__init__.py": "",
            f"{self.project}/{self.package}/defs/__init__.py": "",
            **self.files,
        }
        for path, content in files.items():
            (top / path).parent.mkdir(parents=True, exist_ok=True)
            (top / path).write_text(content)
        subprocess.run(["git", "init", "--quiet", top], check=True)
        subprocess.run(["git", "-C", top, "add", "."], check=True)
        return root.resolve()


_WHEEL = "[tool.hatch.build.targets.wheel]\n"
_ARTIFACTS = '[tool.hatch.build]\nartifacts = ["**/.local_defs_state/**"]\n'
_STATE = "**/.local_defs_state/**"
_UV = "[tool.uv.build-backend]\n"
_PDM = '[tool.pdm.build]\npackage-dir = "src"\n'
_POETRY = '[tool.poetry]\npackages = [{ include = "shop", from = "src" }]\n'
_BOTH = '{ path = "src/shop/defs/.local_defs_state/**/*", format = ["sdist", "wheel"] }'
_FIND = '[tool.setuptools.packages.find]\nwhere = ["src"]\n'
_DATA = '[tool.setuptools.package-data]\nshop = ["defs/.local_defs_state/**"]\n'
_FLAT = "[tool.setuptools]\npackages = ['shop', 'shop.defs']\n"

CASES = (
    # uv includes what no rule excludes
    Case("uv", "ok"),
    Case("uv wheel-exclude", "fail", f'{_UV}wheel-exclude = ["{_STATE}"]\n', "excludes"),
    Case("uv source-exclude", "fail", f'{_UV}source-exclude = [".local_defs_state"]\n', "excludes"),
    Case("uv exclude of others", "ok", f'{_UV}wheel-exclude = ["**/*.csv"]\n'),
    Case("uv source-include", "ok", f'{_UV}source-include = ["data/**"]\n'),
    Case("uv module-root", "ok", f'{_UV}module-root = "python"\n', package="python/shop"),
    Case("uv flat", "ok", f'{_UV}module-root = ""\n', package="shop"),
    # pdm
    Case("pdm", "ok", _PDM),
    Case("pdm excludes", "fail", f'{_PDM}excludes = ["**/.local_defs_state"]\n', "excludes"),
    Case("pdm includes", "fail", f'{_PDM}includes = ["src/shop/*.py", "src/shop/defs/*.py"]\n'),
    Case("pdm source-includes", "fail",
         f'{_PDM}excludes = ["**/.local_defs_state"]\nsource-includes = ["src/shop/defs"]\n'),
    # flit
    Case("flit", "ok"),
    Case("flit exclude", "fail", f'[tool.flit.sdist]\nexclude = ["src/shop/defs/{_STATE}"]\n',
         "from an sdist"),
    # hatchling
    Case("hatch", "fail"),
    Case("hatch without a rule", "warn", says="only as long as", files={}),
    Case("hatch artifacts", "ok", _ARTIFACTS),
    Case("hatch artifacts with !", "fail",
         f'[tool.hatch.build]\nartifacts = ["{_STATE}", "!{_STATE}"]\n'),
    Case("hatch exclude below artifacts", "ok", f'{_ARTIFACTS}exclude = ["{_STATE}"]\n'),
    Case("hatch exclude without a rule", "fail",
         f'[tool.hatch.build]\nexclude = ["{_STATE}"]\n', files={}),
    Case("hatch only-include", "fail",
         f'{_ARTIFACTS}{_WHEEL}only-include = ["src/shop/__init__.py"]\nsources = ["src"]\n'),
    Case("hatch ignore-vcs", "ok", "[tool.hatch.build]\nignore-vcs = true\n"),
    Case("hatch artifacts of the wheel alone", "fail", f'{_WHEEL}artifacts = ["{_STATE}"]\n',
         "from an sdist"),
    Case("hatch artifacts without stars", "fail",
         '[tool.hatch.build]\nartifacts = [".local_defs_state/**"]\n', "does not change that"),
    Case("hatch force-include", "ok",
         '[tool.hatch.build.targets.wheel.force-include]\n'
         '"src/shop/defs/.local_defs_state" = "shop/defs/.local_defs_state"\n'
         '[tool.hatch.build.targets.sdist.force-include]\n'
         '"src/shop/defs/.local_defs_state" = "src/shop/defs/.local_defs_state"\n'),
    Case("hatch force-include of the wheel alone", "warn",
         '[tool.hatch.build.targets.wheel.force-include]\n'
         '"src/shop/defs/.local_defs_state" = "shop/defs/.local_defs_state"\n', "Could not try"),
    Case("hatch rule above the project", "fail", project="code/shop"),
    Case("hatch .hgignore", "fail", files={".hgignore": "syntax: glob\n.local_defs_state\n"}),
    Case("hatch-vcs", "ok", f'[tool.hatch.version]\nsource = "vcs"\n{_ARTIFACTS}',
         head='dynamic = ["version"]\n'),
    Case("hatch hook that fails", "fail", "[tool.hatch.build.hooks.custom]\n", "Could not try",
         files={**_RULE, "hatch_build.py": "raise SystemExit('no compiler')\n"}),
    Case("hatch hook that includes it", "ok", "[tool.hatch.build.hooks.custom]\n", files={
         **_RULE, "hatch_build.py": """\
from hatchling.builders.hooks.plugin.interface import BuildHookInterface
class Hook(BuildHookInterface):
    def initialize(self, version, build_data):
        source = "src/shop/defs/.local_defs_state"
        target = source if self.target_name == "sdist" else source.removeprefix("src/")
        build_data["force_include"][source] = target
"""}),
    # setuptools
    Case("setuptools", "fail", _FIND),
    Case("setuptools package-data", "ok", _FIND + _DATA),
    Case("setuptools package-data of no dot folder", "fail",
         f'{_FIND}[tool.setuptools.package-data]\nshop = ["**/*"]\n', "does not change that"),
    Case("setuptools exclude-package-data", "fail",
         f'{_FIND}{_DATA}[tool.setuptools.exclude-package-data]\n'
         'shop = ["defs/.local_defs_state/*/*"]\n'),
    Case("setuptools include-package-data", "ok", _FIND, files={
         **_RULE, "MANIFEST.in": "graft src/shop/defs/.local_defs_state\n"}),
    Case("setuptools include-package-data = false", "fail",
         f"[tool.setuptools]\ninclude-package-data = false\n{_FIND}", files={
         **_RULE, "MANIFEST.in": "graft src/shop/defs/.local_defs_state\n"}),
    Case("setuptools prune", "fail", _FIND + _DATA, "from an sdist", {
         **_RULE, "MANIFEST.in": "prune src/shop/defs/.local_defs_state\n"}),
    Case("setuptools global-exclude", "fail", _FIND + _DATA, files={
         **_RULE, "MANIFEST.in": "global-exclude state\n"}),
    Case("setuptools package-dir", "ok", f'{_FLAT}package-dir = {{ shop = "lib" }}\n{_DATA}',
         package="lib"),
    Case("setuptools flat", "ok", _FLAT + _DATA, package="shop"),
    Case("setuptools several packages", "ok", _FIND + _DATA, files={
         **_RULE, "src/till/__init__.py": "", "src/till/price.py": ""}),
    Case("setuptools-scm", "ok", f"{_FIND}{_DATA}[tool.setuptools_scm]\n",
         head='dynamic = ["version"]\n'),
    Case("setuptools namespace package", "ok",
         f'{_FIND}namespaces = true\n[tool.setuptools.package-data]\n'
         '"shop.defs" = [".local_defs_state/**"]\n', package="src/shop"),
    Case("setuptools setup.py", "ok", files={**_RULE, "setup.py": """\
from setuptools import setup
setup(packages=["shop", "shop.defs"], package_dir={"": "src"},
      package_data={"shop": ["defs/.local_defs_state/**"]})
"""}),
    # poetry
    Case("poetry", "fail", _POETRY),
    Case("poetry without a rule", "fail", _POETRY, files={}),
    Case("poetry include", "ok", f"{_POETRY}include = [{_BOTH}]\n"),
    Case("poetry include of the sdist alone", "fail",
         f'{_POETRY}include = [{{ path = "src/shop/defs/{_STATE}/*", format = "sdist" }}]\n'),
    # What poetry includes by name, it does not exclude.
    Case("poetry include and exclude", "ok",
         f'{_POETRY}include = [{_BOTH}]\nexclude = ["{_STATE}"]\n'),
    Case("poetry exclude", "fail", f'{_POETRY}exclude = ["{_STATE}"]\n'),
)  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_what_is_said_of_a_configuration(case: Case, tmp_path: Path) -> None:
    root = case.make(tmp_path)
    before = _files(tmp_path)
    finding = _examined(root)
    assert (finding.grade, case.says in finding.what) == (case.grade, True), finding
    assert ("guess" in finding.what) == (case.name == "hatch hook that fails"), finding
    assert _files(tmp_path) == before


# --- what runs --------------------------------------------------------------------------------

_HOOK = "[tool.hatch.build.hooks.custom]\n"


@pytest.mark.parametrize(
    ("hook", "says"),
    [
        ("import os\nraise SystemExit(f'{os.environ.get(\"SHOP_TOKEN\")} is the token')",
         "None is the token"),
        ("import urllib.request as r\nr.urlopen('http://192.0.2.1', timeout=20)", "urlopen"),
        ("import time\ntime.sleep(300)", "did not finish within 3 s"),
    ],
)  # fmt: skip
def test_a_hook_sees_no_secret_and_no_network_and_is_ended(
    hook: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "sleep" in hook:
        monkeypatch.setattr(probe, "_DEADLINE_SECONDS", 3)
    monkeypatch.setenv("SHOP_TOKEN", "a-secret-of-some-length")
    files = {**_RULE, "hatch_build.py": hook}
    finding = _examined(Case("hatch", "fail", _HOOK, files=files).make(tmp_path))
    assert finding.what.startswith("Could not try: ")
    assert says in finding.what
    assert "; guess: hatchling excludes the state from a wheel" in finding.what


def test_a_linked_work_tree_is_tried_and_its_repository_stays_as_it_is(wd: WorkDir) -> None:
    root = Case("poetry", "fail", _POETRY).make(wd.path)
    wd("git commit --quiet --message=Start")
    wd("git worktree add --quiet ../linked")
    questions = ("git log --all --oneline", "git tag", "git worktree list", "git status --short")
    before = [wd(question) for question in questions]
    linked = wd.path.parent / "linked"
    assert (linked / ".git").is_file()
    finding = _examined(linked / root.relative_to(wd.path))
    assert finding.what == "poetry excludes the state from a wheel."
    assert [wd(question) for question in questions] == before
    assert WorkDir(linked, wd.env)("git status --short") == ""


def test_a_backend_in_the_project_is_run(tmp_path: Path) -> None:
    root = Case("hatch", "ok").make(tmp_path)
    (root / "build_it").mkdir()
    (root / "build_it/own.py").write_text(
        "from hatchling.build import *\nfrom hatchling import build\n"
    )
    text = (root / "pyproject.toml").read_text()
    own = "'own'\nbackend-path = ['build_it']"
    (root / "pyproject.toml").write_text(text.replace("'hatchling.build'", own) + _ARTIFACTS)
    finding = _examined(root)
    assert finding.what == "own includes the state in a wheel: a wheel was tried."


def test_the_names_of_published_states_are_tried(tmp_path: Path) -> None:
    tables = f'{_FIND}[tool.setuptools.package-data]\nshop = ["defs/.local_defs_state/A/*"]\n'
    root = Case("setuptools", "ok", tables).make(tmp_path)
    state = root / "src/shop/defs/.local_defs_state"
    (state / "A").mkdir(parents=True)
    (state / "A/state").write_text("a secret of the vendor")
    assert _examined(root).grade == "ok"
    (state / "B").mkdir()
    (state / "B/state").write_text("x")
    assert _examined(root).grade == "fail"


def test_a_build_ends_its_processes_and_writes_nothing_into_the_project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = Case("hatch", "fail", _HOOK).make(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(root / "src"))
    monkeypatch.setenv("SHOP_INDEX", "https://user:a-password@example.com/simple")
    note = tmp_path / "note"
    os.mkfifo(note)
    (root / "hatch_build.py").write_text(f"""\
import os, subprocess
stream = os.open({str(note)!r}, os.O_WRONLY)
os.write(stream, b"started")
subprocess.Popen(["sleep", "60"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                 stderr=subprocess.DEVNULL, pass_fds=[stream])
names = ["SHOP_INDEX", "PYTHONPATH", "PYTHONDONTWRITEBYTECODE"]
raise SystemExit(str([os.environ.get(name) for name in names]))
""")
    reader = os.open(note, os.O_RDONLY | os.O_NONBLOCK)
    try:
        assert "[None, None, '1']" in _examined(root).what
        assert os.read(reader, 7) == b"started"
        os.set_blocking(reader, True)
        assert select.select([reader], [], [], 30)[0]  # its last writer has ended
    finally:
        os.close(reader)


def test_a_reason_names_no_folder_that_is_removed(tmp_path: Path) -> None:
    root = Case("hatch", "fail", _HOOK).make(tmp_path)
    (root / "hatch_build.py").write_text("open(__file__ + '.missing')\n")
    assert "state-bundler-probe" not in _examined(root).what


def test_our_own_hook_includes_the_made_up_state(tmp_path: Path) -> None:
    hook = "[tool.hatch.build.hooks.state-bundler]\nrequire = true\n"
    root = Case("hatch", "ok", hook).make(tmp_path)
    (finding,) = packaging.backend(DoctorContext(survey(root), Path(sys.executable)))
    assert finding.grade == "ok", finding


def _examined(root: Path) -> Finding:
    (finding,) = packaging.backend(DoctorContext(survey(root), python_of("backends")))
    return finding


def _files(top: Path) -> dict[Path, bytes]:
    return {
        path: path.read_bytes()
        for path in top.rglob("*")
        if path.is_file() and ".git" not in path.relative_to(top).parts
    }
