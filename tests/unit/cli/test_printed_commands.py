"""Every command that a message asks the user to run is pasted by a test, as it is printed."""

from __future__ import annotations

import ast
import re
import shlex
import shutil
import sys
import zipfile
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from tests.campaigns.fault_campaign import STATES, configure, write_inputs
from tests.support.workdir import WorkDir
from tests.unit.cli.tried_commands import NO_COMMAND, TRIED

ROOT = Path(__file__).parents[3]
BIN = Path(sys.executable).parent
_PROGRAMS = (
    *("state-bundler", "state-guard", "docker", "git", "uv", "pip", "pex3", "pre-commit", "dg"),
    *("chmod", "mv", "rm", "cp", "ln", "mkdir", "sudo", "printf", "ssh-keygen", "skopeo", "cosign"),
    *("poetry", "pixi", "pdm", "pipenv", "pants", "conda"),
)
# Where a command begins: the text itself, or what follows a colon, a backquote, or "Run".
_COMMAND = re.compile(rf"(?:^|: |`|\(|[Rr]un )((?:{'|'.join(_PROGRAMS)}) [^`]+)")


def _literals(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """The texts of a module, each with its function, and {} for what is put into them."""
    owner: dict[ast.AST, str] = {}
    inside: set[ast.AST] = set()
    for node in ast.walk(tree):  # a parent comes before its children
        name = (
            node.name
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
            else owner.get(node, "")
        )
        for child in ast.iter_child_nodes(node):
            owner[child] = name
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            inside.add(node.value)  # a docstring
        elif isinstance(node, ast.JoinedStr) and node not in inside:
            inside |= set(ast.walk(node))
            parts = (it.value if isinstance(it, ast.Constant) else "{}" for it in node.values)
            yield owner[node], "".join(map(str, parts))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in inside:
            yield owner[node], node.value


def _printed_commands() -> Iterator[tuple[str, str, str]]:
    """Module, function and text of each command, in the order in which they are written.

    A text that begins with a program's name and ends in a full stop is a message.
    """
    for path in sorted((ROOT / "bundler").rglob("*.py")):
        if "worker" in path.parts:
            continue
        for function, text in _literals(ast.parse(path.read_text())):
            if text.startswith("Usage: ") or "\n  --" in text:
                continue
            for match in _COMMAND.finditer(text):
                command = match[1].partition("\n")[0].rstrip(".,) ")
                if match.start(1) or not text.endswith("."):
                    yield path.relative_to(ROOT / "bundler").as_posix(), function, command


def test_every_command_that_is_printed_is_tried() -> None:
    """A new one needs its own row, with the test that pastes it."""
    rows = {(place, command) for place, command, _ in TRIED}
    printed = [
        (place, command)
        for module, function, command in _printed_commands()
        if (place := f"{module} {function}", command) in rows or not command.startswith(NO_COMMAND)
    ]
    assert sorted(printed) == sorted((place, command) for place, command, _ in TRIED)


@pytest.mark.parametrize("where", sorted({where for _, _, where in TRIED}))
def test_what_tries_it_exists(where: str) -> None:
    if where.startswith("not here: "):
        return
    path, name = where.split("::")
    assert f"def {name}(" in (ROOT / path).read_text()


@pytest.fixture
def shop(wd: WorkDir, tmp_path: Path) -> WorkDir:
    """A project with two keys and nothing published, whose store only the command line names."""
    write_inputs(tmp_path / "inputs", {"a": {"state": "some"}, "it's": {"state": "more"}})
    configure(wd.path, tmp_path / "inputs", ["a"])
    with (wd.path / "pyproject.toml").open("a") as table:
        table.write(
            f'[[tool.state-bundler.source]]\nkey = "it\'s"\npath = "{STATES}"\n'
            'command = ["sh", "-c", "echo more > $0", "{state_path}"]\n'
        )
    return wd


def said(wd: WorkDir, *arguments: str | Path, code: int) -> str:
    done = wd.run([BIN / "state-bundler", *arguments])
    assert done.returncode == code, done
    return (done.stdout + done.stderr).decode()


def printed(text: str) -> str:
    """The one command in what was printed, without the words before it and the full stop."""
    found = [m[1] for line in text.splitlines() if (m := _COMMAND.search(line.strip()))]
    assert len(found) == 1, text
    return found[0]


def paste(wd: WorkDir, command: str) -> str:
    return wd(["sh", "-c", command])


@pytest.fixture
def store(tmp_path: Path) -> str:
    return f"--store=file://{tmp_path}/a%20store"


@pytest.mark.slow
def test_states_that_are_not_there_yet(shop: WorkDir, store: str) -> None:
    never = said(shop, "refresh", "--when", "never", "--key", "it's", code=76)
    paste(shop, printed(never))
    said(shop, "refresh", "--when", "never", "--key", "it's", code=0)


@pytest.mark.slow
def test_a_store_that_is_empty(shop: WorkDir, store: str) -> None:
    paste(shop, printed(said(shop, "store", "push", store, code=78)))
    paste(shop, printed(said(shop, "store", "rollback", store, code=2)))
    said(shop, "store", "pull", "-o", "out", store, code=0)


@pytest.mark.slow
def test_what_a_store_does_not_have(shop: WorkDir, store: str) -> None:
    said(shop, "refresh", code=0)
    said(shop, "store", "push", store, code=0)
    unknown = said(shop, "store", "pin", "00000000-0000-0000-0000-000000000000", store, code=2)
    assert "it's" in paste(shop, printed(unknown))
    too_old = said(shop, "store", "diff", "2001-01-01T00:00:00Z", store, code=2)
    assert "1" in paste(shop, printed(too_old))


def test_a_baseline_of_other_projects(shop: WorkDir, tmp_path: Path) -> None:
    """Its states are compared only if the user names them."""
    said(shop, "refresh", code=0)
    for name in ("one", "two"):
        shutil.copytree(shop.path / STATES, tmp_path / "old ones" / name / ".local_defs_state")
    other = said(shop, "refresh", "--baseline", tmp_path / "old ones", code=78)
    one = tmp_path / "old ones/one/.local_defs_state"
    assert str(one) in other
    said(shop, "refresh", "--baseline", one, code=0)


@pytest.mark.parametrize(
    "tables",
    [
        "tool = { dg = { project = { root_module = 'shop' } } }\n",
        """\
build-system = { build-backend = 'hatchling.build' }
[tool]
state-bundler = {}
dg.project.root_module = 'shop'
hatch = {}
""",
    ],
)
@pytest.mark.slow
def test_a_pyproject_that_cannot_be_changed(wd: WorkDir, tables: str) -> None:
    (wd.path / "pyproject.toml").write_text(tables)
    paste(wd, f"{printed(said(wd, 'init', '--yes', code=78))} --yes")
    assert (wd.path / "pyproject.toml").read_text() == tables


@pytest.mark.slow
def test_a_version_that_has_rotted(shop: WorkDir, store: str, tmp_path: Path) -> None:
    said(shop, "refresh", code=0)
    said(shop, "store", "push", store, code=0)
    before = set((tmp_path / "a store/content").iterdir())
    (tmp_path / "inputs/a/state").write_text("another")
    said(shop, "refresh", code=0)
    said(shop, "store", "push", store, code=0)
    (rotten,) = set((tmp_path / "a store/content").iterdir()) - before
    rotten.write_text("rotten")
    said(shop, "store", "pull", "-o", "out", store, code=76)
    roll_back, _, _ = said(shop, "store", "verify", store, code=76).partition("Or remove")
    paste(shop, printed(roll_back))
    said(shop, "store", "pull", "-o", "out", store, code=0)


@pytest.mark.slow
def test_shards(shop: WorkDir, store: str) -> None:
    one = said(shop, "refresh", "--shard", "1/2", "--run", "run.7", store, code=0)
    (join,) = (line for line in one.splitlines() if line.startswith("When all"))
    missing = said(shop, *shlex.split(printed(join))[1:], code=2)
    paste(shop, printed(missing))
    assert "set 1" in paste(shop, printed(join))


def test_states_that_were_altered(shop: WorkDir) -> None:
    said(shop, "refresh", code=0)
    (shop.path / STATES / "a/state").write_text("altered")
    command = printed(said(shop, "status", STATES, code=76))
    assert said(shop, *shlex.split(command)[1:], code=76).count("a/state") >= 1


def test_keys_and_signatures(shop: WorkDir, tmp_path: Path) -> None:
    said(shop, "refresh", code=0)
    key = str(tmp_path / "a key")
    make = printed(said(shop, "sign", STATES, "--ssh-key", key, code=2)).removesuffix("KEY")
    paste(shop, f"{make}{shlex.quote(key)} -q -N ''")
    (tmp_path / "allowed").write_text(f"me@example.org {Path(key + '.pub').read_text()}")
    paste(shop, f"state-bundler sign {STATES} --ssh-key {shlex.quote(key)}")
    said(shop, "verify", STATES, "--signed-by", str(tmp_path / "allowed"), code=0)


# --- a dependency that is missing -----------------------------------------------------------


@pytest.fixture
def index(tmp_path: Path) -> Iterator[str]:
    """A package index on loopback with a dagster and a dbt-core that hold nothing."""
    for name, version in (("dagster", "1.12.0"), ("dbt-core", "1.11.0"), ("dbt-core", "1.12.0")):
        module = name.replace("-", "_")
        info = f"{module}-{version}.dist-info"
        place = tmp_path / "index" / name
        place.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(place / f"{module}-{version}-py3-none-any.whl", "w") as wheel:
            metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
            wheel.writestr(f"{info}/METADATA", metadata)
            wheel.writestr(
                f"{info}/WHEEL",
                "Wheel-Version: 1.0\nGenerator: t\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
            )
            wheel.writestr(f"{info}/RECORD", f"{info}/METADATA,,\n{info}/WHEEL,,\n")
    handler = partial(_Quiet, directory=str(tmp_path / "index"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.slow
@pytest.mark.parametrize("where", [".", ".."])
def test_a_dependency_that_is_missing(wd: WorkDir, index: str, where: str) -> None:
    wd.write(
        "pyproject.toml",
        '[project]\nname = "shop"\nversion = "1"\nrequires-python = ">=3.10"\n'
        '[tool.dg.project]\nroot_module = "shop"\n[tool.uv]\n',
    )
    wd([sys.executable, "-m", "venv", "--without-pip", ".venv"])
    (site,) = (wd.path / ".venv/lib").glob("python*/site-packages")
    wd.write(
        site.relative_to(wd.path).joinpath("dagster-1.11.9.dist-info/METADATA").as_posix(),
        "Metadata-Version: 2.1\nName: dagster\nVersion: 1.11.9\n",
    )
    wd.env["UV_DEFAULT_INDEX"] = index
    here = wd.at(where)
    doctor = [BIN / "state-bundler", "doctor", "--project", wd.path]
    report = here.run([*doctor, "--format", "json"]).stdout.decode()
    (fix,) = re.findall(r"\(?[^\"]*uv add '[^']+'\)?", report)
    paste(here, fix)
    again = here.run(doctor)
    assert b"uv add" not in again.stdout
    assert b"with dagster 1.12.0" in again.stdout
