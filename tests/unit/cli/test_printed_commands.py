"""Every command that a message tells the user to run is pasted by a test, as it is printed."""

from __future__ import annotations

import ast
import re
import shlex
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

ROOT = Path(__file__).parents[3]
BIN = Path(sys.executable).parent
_PROGRAMS = (
    *("state-bundler", "state-guard", "docker", "git", "uv", "pip", "pex3", "pre-commit", "dg"),
    *("chmod", "mv", "rm", "cp", "ln", "mkdir", "sudo", "printf", "ssh-keygen", "skopeo", "cosign"),
)
# Where a command begins: the text itself, or what follows a colon, a backquote, or "Run".
_COMMAND = re.compile(rf"(?:^|: |`|\(|[Rr]un )((?:{'|'.join(_PROGRAMS)}) [^`]+)")
_HERE = "tests/unit/cli/test_printed_commands.py"
_GUARD = "tests/unit/guard/test_guard_printed_fixes.py"
_TRAPS = "tests/dagster/test_doctor_traps.py"
_HOSTILE = "tests/unit/state/test_hostile_state_directories.py"
_CURES = f"{_TRAPS}::test_a_fix_that_is_printed_cures_what_it_was_printed_for"
_MORE = "tests/unit/cli/test_pasted_commands.py"
_DOCKER = "tests/engine/test_printed_docker_commands.py"
_REPOSITORIES = "tests/unit/guard/test_guard_repositories.py"
_FIFOS = "tests/unit/artifacts/test_fifos_in_packed_files.py"
_REACH = "tests/dagster/test_doctor.py::test_reach_asks_each_system_with_the_same_load"
_WORKFLOW = "tests/engine/test_first_contact.py::test_every_step_of_the_workflow_runs"
_SHOWS = "needs: it shows more"
# Of each place that prints a command: the test that pastes it, or what only a user can bring to it.
TRIED = {
    "artifacts/image/engine/arguments.py": {"docker bundle": "needs: the name of an image"},
    "artifacts/image/engine/connection.py": {
        "docker version": f"{_DOCKER}::test_an_engine_that_does_not_respond"
    },
    "artifacts/image/engine/opening.py": {
        "docker pull": f"{_DOCKER}::test_an_image_that_the_engine_does_not_have"
    },
    "artifacts/image/engine/stdin_context.py": {"docker bundle": "needs: a file on stdin"},
    "artifacts/image/registry/credentials.py": {
        "docker login": f"{_DOCKER}::test_a_registry_that_wants_a_login"
    },
    "artifacts/image/registry/store.py": {"skopeo list-tags": "needs: skopeo"},
    "artifacts/image/registry/tokens.py": {
        "docker login": f"{_DOCKER}::test_a_registry_that_wants_a_login"
    },
    "artifacts/python/blocking.py": {
        "mv {}": f"{_FIFOS}::test_a_build_names_it_and_the_fix_moves_it"
    },
    "artifacts/python/pex/arguments.py": {"pex3 scie": "needs: a download"},
    "artifacts/python/pex/file.py": {"pex3 scie": "needs: a download"},
    "cli/doctor.py": {"state-bundler doctor --fix": _CURES},
    "cli/init.py": {
        "docker bundle": "needs: the name of an image",
        "docker bundle --help": _SHOWS,
    },
    "component.py": {"state-bundler refresh": f"{_MORE}::test_a_load_without_its_state"},
    "git/blocking.py": {"mv {}": f"{_GUARD}::test_a_file_that_blocks_git"},
    "git/questions.py": {"rm {}": f"{_GUARD}::test_a_damaged_index"},
    "git/repository.py": {
        "git config --global --add": f"{_REPOSITORIES}::test_another_owner",
        "git submodule --init": "tests/unit/guard/test_guard_ignored.py"
        "::test_a_sparse_checkout_and_a_submodule_without_git",
    },
    "git/words.py": {"printf '{}'": f"{_GUARD}::test_state_in_the_index"},
    "guard/commits.py": {
        "git fetch --unshallow": f"{_REPOSITORIES}::test_shallow",
        "git tag --delete": f"{_MORE}::test_a_tag_of_a_tree_with_state",
    },
    "guard/fixes.py": {
        "chmod u+w": f"{_GUARD}::test_an_unprotected_directory",
        "git -C": f"{_GUARD}::test_from_where_the_user_is",
        "mv {}": f"{_GUARD}::test_a_file_that_blocks_git",
        "printf '{}%s\\n'": f"{_GUARD}::test_an_unprotected_directory",
        "rm {}": f"{_GUARD}::test_a_damaged_index",
    },
    "guard/wheel.py": {
        "state-bundler doctor --fix --project": f"{_GUARD}::test_wheels_of_several_projects"
    },
    "project/environment_tools.py": {
        "pip install": "needs: a package index",
        "uv add": f"{_HERE}::test_a_dependency_that_is_missing",
        "uv run": "needs: a command",
        "uv sync": f"{_MORE}::test_an_environment_without_the_project",
    },
    "project/no_project.py": {"state-bundler init": f"{_MORE}::test_a_directory_without_a_project"},
    "refresh/directories.py": {
        "state-bundler refresh --key": f"{_HERE}::test_states_that_are_not_there_yet"
    },
    "refresh/discovery.py": {"dg list": _SHOWS},
    "refresh/outcome/classify.py": {"git status": _SHOWS},
    "refresh/sources/dagster.py": {"dg check": _SHOWS},
    "setup/demo/project.py": {"state-bundler demo": "needs: the name of a folder"},
    "setup/doctor/commits.py": {
        "state-bundler doctor --fix": _CURES,
        "state-bundler init --git-hooks": _CURES,
    },
    "setup/doctor/components.py": {
        "dg list": _SHOWS,
        "state-bundler refresh": f"{_MORE}::test_a_key_without_a_component",
    },
    "setup/doctor/credentials.py": {"state-bundler doctor --reach": _REACH},
    "setup/doctor/docker.py": {"docker version": _SHOWS, "git status": _SHOWS},
    "setup/doctor/packaging.py": {"rm -rf": _CURES},
    "setup/doctor/reach.py": {"state-bundler doctor --reach": _REACH},
    "setup/doctor/state.py": {"state-bundler refresh": f"{_MORE}::test_an_altered_state_in_doctor"},
    "setup/init/__init__.py": {"state-bundler init": "needs: a comment in a file is no advice"},
    "setup/init/pre_commit_config.py": {
        "pre-commit migrate-config": f"{_MORE}::test_a_pre_commit_configuration_of_old",
        "state-bundler init --without": f"{_MORE}"
        "::test_a_pre_commit_configuration_that_is_not_understood",
    },
    "setup/init/precommit.py": {"pre-commit install": _CURES},
    "setup/init/pyproject.py": {"state-bundler init": "needs: a comment in a file is no advice"},
    "setup/init/workflow.py": dict.fromkeys(
        (
            "docker build --quiet --tag",
            "state-bundler build --project",
            "uv sync --directory",
            "uv venv --python",
        ),
        _WORKFLOW,
    ),
    "state/publishing.py": {
        "rm -r": f"{_HOSTILE}::test_the_fix_for_a_damaged_journal_works_where_it_is_pasted"
    },
    "state/statedir.py": {
        "git -C --cached": f"{_HOSTILE}"
        "::test_the_fix_for_a_journal_in_git_works_where_it_is_pasted",
        "state-bundler refresh": f"{_MORE}::test_a_publish_that_was_interrupted",
    },
    "store/local.py": {"state-bundler refresh": f"{_HERE}::test_a_store_that_is_empty"},
    "store/shards.py": {"state-bundler refresh --shard --run --store": f"{_HERE}::test_shards"},
    "store/store.py": {"state-bundler store --store": f"{_HERE}::test_what_a_store_does_not_have"},
    "workflows/embed.py": {
        "docker pull": f"{_DOCKER}::test_an_engine_s_tag_for_an_image_of_a_registry"
    },
    "workflows/plan.py": {"dg check": _SHOWS},
    "workflows/plan_file.py": {"state-bundler plan --out": f"{_MORE}::test_a_plan_that_is_none"},
    "workflows/signature.py": {
        "ssh-keygen -t": f"{_HERE}::test_keys_and_signatures",
        "state-bundler sign --ssh-key": f"{_MORE}::test_a_signature_that_is_missing",
    },
    "workflows/status.py": {"state-bundler verify": f"{_HERE}::test_states_that_were_altered"},
    "workflows/store_build.py": {
        "state-bundler refresh --push": f"{_MORE}::test_a_store_without_a_version"
    },
    "workflows/wheel_hook.py": {
        "state-bundler refresh": f"{_MORE}::test_a_wheel_of_an_altered_state"
    },
}
# A label, or words of a sentence.
LOOKS_LIKE_ONE = {
    *(
        "docker build",
        "docker buildx",
        "docker history",
        "docker push",
        "docker compose",
        "docker {}",
        "git add",
        "git could",
        "git would",
        "state-bundler build",
        "state-bundler embed",
        "state-bundler init --docker-plugin",
        "state-bundler is",
        "state-bundler leaves",
        "state-bundler {}",
        "state-guard directly",
        "state-guard --push --push --remote",
        "state-guard --staged --staged",
        "uv build",
        "uv tool --quiet --bin",  # in a workflow
    ),
}


def _literals(tree: ast.Module) -> Iterator[str]:
    """The texts of a module but its docstrings, with {} for what is put into them."""
    seen: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and node.body:
            first = node.body[0]
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                seen.add(id(first.value))
        if isinstance(node, ast.JoinedStr) and id(node) not in seen:
            seen |= {id(each) for each in ast.walk(node)}
            yield "".join(
                str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values
            )
        elif (
            isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in seen
        ):
            yield node.value


def _kind(command: str) -> str:
    """The program, its subcommand and the names of its options, without their values."""
    words = re.split(r"[\s)]+", command)
    options = [word for word in words if re.fullmatch(r"--[a-z-]+", word.rstrip(",.:"))]
    return " ".join([words[0], words[1].rstrip(",.:"), *(word.rstrip(",.:") for word in options)])


def _kind(command: str) -> str:
    """The program, its subcommand and the names of its options, without their values."""
    words = re.split(r"[\s)]+", command)
    options = [word for word in words if re.fullmatch(r"--[a-z-]+", word.rstrip(",.:"))]
    return " ".join([words[0], words[1].rstrip(",.:"), *(word.rstrip(",.:") for word in options)])


def _printed_commands() -> dict[str, set[str]]:
    """By place. A text that begins with a program's name and ends in a full stop is a sentence."""
    found: dict[str, set[str]] = {}
    for path in sorted(ROOT.glob("bundler/**/*.py")):
        if "worker" in path.parts:
            continue
        for text in _literals(ast.parse(path.read_text())):
            if text.startswith("Usage: ") or "\n  --" in text:
                continue
            match = _COMMAND.search(text)
            if match is None or (match.start(1) == 0 and text.endswith(".")):
                continue
            if (kind := _kind(match[1])) not in LOOKS_LIKE_ONE:
                found.setdefault(path.relative_to(ROOT / "bundler").as_posix(), set()).add(kind)
    return found


def test_every_command_that_is_printed_is_tried() -> None:
    """A new one needs a test that pastes it, named here."""
    assert _printed_commands() == {place: set(kinds) for place, kinds in TRIED.items()}


_TESTS = {where for kinds in TRIED.values() for where in kinds.values() if "::" in where}


@pytest.mark.parametrize("where", sorted(_TESTS))
def test_what_tries_it_exists(where: str) -> None:
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


def test_states_that_are_not_there_yet(shop: WorkDir, store: str) -> None:
    never = said(shop, "refresh", "--when", "never", "--key", "it's", code=76)
    paste(shop, printed(never))
    said(shop, "refresh", "--when", "never", "--key", "it's", code=0)


def test_a_store_that_is_empty(shop: WorkDir, store: str) -> None:
    paste(shop, printed(said(shop, "store", "push", store, code=78)))
    paste(shop, printed(said(shop, "store", "rollback", store, code=2)))
    said(shop, "store", "pull", "-o", "out", store, code=0)


def test_what_a_store_does_not_have(shop: WorkDir, store: str) -> None:
    said(shop, "refresh", code=0)
    said(shop, "store", "push", store, code=0)
    unknown = said(shop, "store", "pin", "00000000-0000-0000-0000-000000000000", store, code=2)
    assert "it's" in paste(shop, printed(unknown))
    too_old = said(shop, "store", "diff", "2001-01-01T00:00:00Z", store, code=2)
    assert "1" in paste(shop, printed(too_old))


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
    paste(shop, printed(said(shop, "store", "verify", store, code=76)))
    said(shop, "store", "pull", "-o", "out", store, code=0)


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
