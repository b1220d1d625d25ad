"""Every way to make a PEX of a project: built, run, updated, run again where the older one ran.

`python -m tests.campaigns.pex_matrix` (``make pex-matrix``) runs everything, which takes most of an
hour, and writes the table of ``docs/evidence/pex-matrix.md``; the tests run a few of the cases.
"""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bundler.artifacts.embedding import EmbedRequest
from bundler.artifacts.python.pex.arguments import parse
from bundler.artifacts.python.pex.building import building
from bundler.artifacts.python.pex.file import PexArtifact
from bundler.artifacts.verify import verify
from bundler.errors import BundlerError
from bundler.state.bundle import Bundle
from tests.support.embedding import embed_pex
from tests.support.pex_projects import (
    PEX,
    PRINT_STATE,
    RECORD,
    bundle_of,
    output_of,
    set_state,
    write,
)

STATE = "shop/defs/.local_defs_state"
_FIXED = 'version = "1.0"'
_DYNAMIC = 'dynamic = ["version"]'

# requires, backend, the version's line, and the tables that make it find the package in src/ or not
BACKENDS: dict[str, tuple[str, str, str, str]] = {
    "hatchling": (
        '"hatchling"',
        "hatchling.build",
        _FIXED,
        '[tool.hatch.build.targets.wheel]\npackages = ["{folder}shop"]\n',
    ),
    "hatch-vcs": (
        '"hatchling", "hatch-vcs"',
        "hatchling.build",
        _DYNAMIC,
        (
            '[tool.hatch.version]\nsource = "vcs"\n'
            '[tool.hatch.build.targets.wheel]\npackages = ["{folder}shop"]\n'
        ),
    ),
    "setuptools": (
        '"setuptools"',
        "setuptools.build_meta",
        _FIXED,
        '[tool.setuptools.packages.find]\nwhere = ["{where}"]\ninclude = ["shop*"]\n',
    ),
    "setuptools-scm": (
        '"setuptools", "setuptools-scm"',
        "setuptools.build_meta",
        _DYNAMIC,
        (
            "[tool.setuptools_scm]\n[tool.setuptools.packages.find]\n"
            'where = ["{where}"]\ninclude = ["shop*"]\n'
        ),
    ),
    "poetry-core": (
        '"poetry-core>=2"',
        "poetry.core.masonry.api",
        _FIXED,
        '[tool.poetry]\npackages = [{{ include = "shop", from = "{where}" }}]\n',
    ),
    "uv_build": (
        '"uv_build"',
        "uv_build",
        _FIXED,
        '[tool.uv.build-backend]\nmodule-root = "{root}"\n',
    ),
    "flit": ('"flit_core>=3.11"', "flit_core.buildapi", _FIXED + '\ndescription = "A shop"', ""),
    "pdm": ('"pdm-backend"', "pdm.backend", _FIXED, '[tool.pdm.build]\npackage-dir = "{where}"\n'),
}

# Until 2.59 pex wrote spaces into its JSON, and no RECORD into an installed wheel.
OLDER = ("2.24.0", "2.33.0", "2.55.2", "2.59.0", "2.60.0", "2.80.0")
_LAYOUTS = ("zipapp", "packed", "loose")
_OPTIONS = (
    (),
    ("--venv",),
    ("--no-pre-install-wheels",),
    ("--venv", "--sh-boot"),
    ("--no-compress",),
)


@dataclass(frozen=True)
class Case:
    """source: how pex gets the project. ignored: the root ignore file names the state."""

    backend: str
    flat: bool
    ignored: bool
    source: str
    options: tuple[str, ...] = ("--venv",)

    @property
    def name(self) -> str:
        layout = "flat" if self.flat else "src"
        ignored = "ignored" if self.ignored else "nested"
        return " ".join([self.backend, layout, ignored, self.source, *self.options])


def whole() -> list[Case]:
    """All backends in both layouts and both kinds of ignoring; all kinds of PEX for one of them."""
    cases = [
        Case(backend, flat, ignored, "." if flat else "--project")
        for backend, flat, ignored in itertools.product(BACKENDS, (False, True), (False, True))
    ]
    kinds = [*itertools.product(("-D", "."), _LAYOUTS, _OPTIONS)]
    # Whatever named the code, it is in the PEX as with -D or with `.`: one kind of each layout.
    kinds += itertools.product(("-P", "-r", "-D, lock"), _LAYOUTS, [("--venv",)])
    kinds.append(("lock of the project", "zipapp", ("--venv",)))
    cases += [
        Case("hatchling", flat=False, ignored=True, source=source, options=("--layout", layout, *o))
        for source, layout, o in kinds
    ]
    return cases


def run(case: Case, folder: Path, pex: Path = PEX) -> None:
    """Raises `AssertionError` or `BundlerError` where the case does not hold."""
    project = make_project(case, folder / "project")
    output = folder / "app.pex"
    root = folder / "run root"
    source = project / ("" if case.flat else "src")
    set_state(source / STATE, Old="on disk", A="stale")
    state = folder / "state"
    bundle = bundle_of(set_state(state, A="first"))
    arguments = [*_source_arguments(case), *case.options, "-m", "shop", "-o", str(output)]
    with _inside(project):
        _lock(case)
        _build(pex, arguments, bundle)
    assert output_of(output, root) == "A=first"
    bundle = bundle_of(set_state(state, A="second", B="new"))
    embed_pex(output, [bundle], RECORD, output)
    assert output_of(output, root) == "A=second B=new"
    with PexArtifact(output) as artifact:
        assert verify(artifact).all_problems == ()


@contextmanager
def _inside(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def _build(pex: Path, arguments: Sequence[str], bundle: Bundle) -> None:
    with building(str(pex), parse(arguments), EmbedRequest((bundle,), RECORD)) as (made, _):
        assert verify(made).all_problems == ()


def _source_arguments(case: Case) -> Sequence[str]:
    where = "." if case.flat else "src"
    return {
        "-D": ["-D", where],
        "-P": ["-P", f"shop@{where}"],
        ".": ["."],
        "--project": ["--project", "."],
        "-r": ["-r", "requirements.txt"],
        "-D, lock": ["-D", where, "--lock", "../lock.json"],
        "lock of the project": ["--lock", "../lock.json"],
    }[case.source]


def _lock(case: Case) -> None:
    """Locks what the case names: one small package, or the project with its older state on disk."""
    locked = {"-D, lock": "iniconfig", "lock of the project": "."}.get(case.source)
    if locked is not None:
        subprocess.run(
            [PEX.with_name("pex3"), "lock", "create", locked, "-o", "../lock.json"],
            check=True,
            capture_output=True,
        )


def make_project(case: Case, root: Path) -> Path:
    """A project in git, with its first commit tagged."""
    requires, backend, version, tables = BACKENDS[case.backend]
    folder, where, in_root = ("", ".", "") if case.flat else ("src/", "src", "src")
    text = (
        f'[build-system]\nrequires = [{requires}]\nbuild-backend = "{backend}"\n'
        f'[project]\nname = "shop"\n{version}\nrequires-python = ">=3.10"\n'
        + tables.format(folder=folder, where=where, root=in_root)
    )
    write(
        root,
        {
            "pyproject.toml": text,
            "requirements.txt": f"shop @ {root.resolve().as_uri()}\n",
            ".gitignore": f"dist/\n{'.local_defs_state/' if case.ignored else ''}\n",
            f"{folder}shop/__init__.py": '"""A shop."""\n',
            f"{folder}shop/__main__.py": PRINT_STATE,
            f"{folder}shop/defs/__init__.py": "",
        },
    )
    identity = ("-c", "user.name=Test", "-c", "user.email=test@example.org")
    for command in (
        ["init", "-q"],
        ["add", "-A"],
        [*identity, "commit", "-qm", "x"],
        ["tag", "v1"],
    ):
        subprocess.run(["git", *command], cwd=root, check=True)
    return root


def main(words: Sequence[str]) -> int:
    """With words, only the cases whose names have them all, and no page."""
    os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="pex-matrix-")
    os.environ.pop("PEX_ROOT", None)
    rows = ["| case | holds | s |", "|---|---|---|"]
    for case in (case for case in whole() if all(word in case.name for word in words)):
        start = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="pex-matrix-") as folder:
            verdict = _verdict(case, Path(folder))
        rows.append(f"| {case.name} | {verdict} | {time.monotonic() - start:.0f} |")
        print(rows[-1], flush=True)
    if not words or words == ["older"]:
        rows += ["", _ABOUT_OLDER, *_older()]
    if not words:
        wheels = backend_matrix.table()
        rows += ["", backend_matrix.ABOUT, *wheels]
        page = Path(__file__).parents[2] / "docs/evidence/pex-matrix.md"
        page.write_text(f"{_ABOUT}\n" + "\n".join(rows) + "\n")
    return 1 if any("| no:" in row for row in rows) else 0


def _older() -> Iterator[str]:
    """A row for each older version of pex, which comes from the package index."""
    yield from ("| pex | holds |", "|---|---|")
    for version in OLDER:
        with tempfile.TemporaryDirectory(prefix="pex-matrix-") as folder:
            pex = _installed(version, Path(folder) / "pex")
            cases = _cases_of_older()
            verdicts = [
                _verdict(case, Path(folder) / str(number), pex) for number, case in enumerate(cases)
            ]
        holds = next((verdict for verdict in verdicts if verdict != "yes"), "yes")
        row = f"| {version} | {holds} |"
        print(row, flush=True)
        yield row


def _cases_of_older() -> Iterator[Case]:
    layouts = [("--layout", layout, "--venv") for layout in _LAYOUTS]
    more = [("--sh-boot", "--venv"), ("--no-pre-install-wheels", "--venv")]
    kinds = (*itertools.product(("-D", "."), layouts), *itertools.product((".",), more))
    for source, options in kinds:
        yield Case("hatchling", flat=False, ignored=True, source=source, options=options)


def _installed(version: str, home: Path) -> Path:
    uv = (sys.executable, "-m", "uv")
    subprocess.run([*uv, "venv", "-q", "--python", sys.executable, home], check=True)
    install = ("pip", "install", "-q", "--python", home / "bin/python", f"pex=={version}")
    subprocess.run([*uv, *install], check=True)
    return home / "bin" / "pex"


def _verdict(case: Case, folder: Path, pex: Path = PEX) -> str:
    try:
        run(case, folder, pex)
    except (AssertionError, BundlerError, subprocess.CalledProcessError) as error:
        return f"no: {type(error).__name__}: {error}".replace("\n", " ")[:200]
    return "yes"


_ABOUT = """# PEX matrix

`make pex-matrix` writes this page. In each case, an older and wrong state is on disk. A PEX is
built with a verified state, run, updated with a newer state, and run again with the same
PEX_ROOT. Each time it must print exactly the state that was embedded last.

"ignored" means that the ignore file in the root names the state directory, "nested" that only its
own ignore file does. "." and "--project" name the project's folder, "-r" a list that names it.
The seconds were measured on a busy machine.
"""
_ABOUT_OLDER = """## Older versions of pex

On Python 3.11, of the hatchling project above: `-D` and `.` in each layout with `--venv`, and `.`
with `--sh-boot` and with `--no-pre-install-wheels`. `build pex` refuses a pex older than the first
of these before it refreshes anything.
"""

if __name__ == "__main__":
    from tests.campaigns import backend_matrix

    sys.exit(main(sys.argv[1:]))
