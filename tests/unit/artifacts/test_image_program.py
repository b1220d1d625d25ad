"""What an image's command line and scripts say about where its program imports from."""

from __future__ import annotations

import pytest

from bundler.artifacts.image.image_import_path import find, shadowing
from bundler.artifacts.image.image_program import runs_as
from bundler.errors import ConfigurationError
from tests.unit.artifacts.test_image_import_path import APP, PLACE, SITE, module, tree


@pytest.mark.parametrize(
    ("command", "variables", "root"),
    [
        (["dagster", "api", "grpc", "-m", "shop", "-d", "/code"], [], "/code"),
        (["dagster", "api", "grpc", "-d../code"], [], "/code"),
        (["python", "-m", "dagster", "api", "grpc", "--working-directory=code"], [], "/app/code"),
        (["sh", "-c", "dagster code-server start -d $CODE/"], ["CODE=/code"], "/code"),
        (["dagster", "api", "grpc"], ["DAGSTER_WORKING_DIRECTORY=/code"], "/code"),
        (["dagster", "api", "grpc", "-d", "/app"], ["DAGSTER_WORKING_DIRECTORY=/code"], "/app"),
        (["dagster", "api", "grpc"], ["DAGSTER_EMPTY_WORKING_DIRECTORY=1"], f"/{SITE}"),
        (["dagster", "api", "grpc", "--empty-working-directory"], [], f"/{SITE}"),
        (["sh", "-c", "cd /code && exec dagster api grpc"], [], "/code"),
        (["bash", "-lc", "cd ..; cd ${CODE}; dagster api grpc"], ["CODE=code"], "/code"),
        (["bash", "-o", "pipefail", "-c", 'cd /code; "$@"', "-", "dagster", "api"], [], "/code"),
        (["sh", "-c", "set -e; cd /code || exit 1; if make; then make x; fi; dagster api"], [],
         "/code"),
        (["sh", "-c", "export A=1 PYTHONPATH=/code; dagster api --empty-working-directory"], [],
         "/code"),
        (["sh", "-c", "unset A PYTHONPATH; dagster api --empty-working-directory"],
         ["PYTHONPATH=/app"], f"/{SITE}"),
        (["bash", "-c", "PYTHONPATH+=:/app; dagster api --empty-working-directory"],
         ["PYTHONPATH=/code"], "/code"),
        (["env", "PYTHONPATH=/code", "dagster", "api", "--empty-working-directory"], [], "/code"),
        (["sh", "-c", "A=1 PYTHONPATH=/code dagster api --empty-working-directory; date"], [],
         "/code"),
        (["sh", "-c", "PYTHONPATH=/code A=1\ndagster api --empty-working-directory"], [], "/code"),
        (["sh", "-c", "PYTHONPATH=/code python x.py\ndagster api --empty-working-directory"], [],
         f"/{SITE}"),
        (["sh", "-c", "env PYTHONPATH=/code make && dagster api --empty-working-directory"], [],
         f"/{SITE}"),
        (["sh", "-c", "dagster api grpc -d ."], [], "/app"),
        (["uv", "run", "--directory", "/code", "dagster", "api", "grpc"], [], "/code"),
        (["env", "-C", "/code", "dagster", "api", "grpc"], [], "/code"),
        (["docker-init", "-C", "/code", "dagster", "api", "grpc"], [], "/app"),
    ],
)  # fmt: skip
def test_the_program_may_run_or_import_elsewhere_than_in_its_working_directory(
    command: list[str], variables: list[str], root: str
) -> None:
    files = tree({**module("app"), **module("app/code"), **module("code"), **module(SITE)})
    env = [f"{name}={value}" for name, value in APP.environment] + variables
    runs = runs_as({"WorkingDir": "/app", "Env": env, "Cmd": command})
    assert find(files, runs, PLACE) == f"{root}/{PLACE}"
    assert shadowing(files, runs, PLACE, f"{root}/{PLACE}") is None


@pytest.mark.parametrize(
    "script",
    [
        "cd $(git rev-parse --show-toplevel) && dagster api",
        "cd; dagster api",
        "cd ~; dagster api",
        "cd -P /code; dagster api",
        "if true; then cd /code; fi; dagster api",
        "if true; then find / -name x; cd /code; fi; dagster api",
        "if . /settings; then true; fi; dagster api",
        "if true; then unset PYTHONPATH; fi; dagster api",
        "case $1 in dagster) cd /code ;; esac; dagster api",
        "f() { cd /code; }; f; dagster api",
        "cd /missing || cd /code; dagster api",
        "command cd /code; dagster api",
        "pushd /code; dagster api",
        ". ./settings.sh; dagster api",
        "if true; then export PYTHONPATH=/code; fi; dagster api",
        "PYTHONPATH=$(find /) dagster api",
        "cd $(cd ~ && pwd); dagster api",
        "".join(["X=aaaaaaaa", *["; X=$X$X"] * 40, "; cd $X; dagster api"]),
        "PATH=$SOME/bin:$PATH dagster api",
        "su app -c dagster api",
        "[ -d /code ] && cd /code; dagster api",
        "D=/code; test $X && D=/app; cd $D; dagster api",
        "(cd /code && dagster api) & wait",
        "(cd /code && ./serve)",
        "D=$(find / -name shop); cd $D/..; dagster api",
        "dagster api -d $SOMEWHERE",
        ". $SOME/bin/activate; dagster api",
    ],
)
def test_several_copies_are_an_error_if_only_running_the_program_shows_which_it_imports(
    script: str,
) -> None:
    runs = runs_as({"WorkingDir": "/app", "Cmd": ["sh", "-c", script]})
    with pytest.raises(ConfigurationError, match="does not show which is used: /app/"):
        find(tree({**module("app"), **module("code")}), runs, PLACE)
    assert find(tree(module("code/src")), runs, PLACE) == f"/code/src/{PLACE}"


@pytest.mark.parametrize(
    ("script", "root"),
    [('cd "$(dirname "$(realpath "$0")")"', "code"), ('cd "$(dirname "$0")"', "app")],
)
def test_a_script_in_a_link_finds_its_own_folder_as_the_shell_does(script: str, root: str) -> None:
    run = {"code/run.sh": f"{script}\ndagster api".encode()}
    files = tree({**module("app"), **module("code"), **run, "app/run.sh": "-> /code/run.sh"})
    runs = runs_as({"WorkingDir": "/", "Cmd": ["/app/run.sh"]})
    assert find(files, runs, PLACE) == f"/{root}/{PLACE}"


def test_a_shell_script_that_cannot_be_parsed_leaves_open_what_it_does() -> None:
    files = tree({**module("app"), **module("code"), "run.sh": b"#!/bin/sh\nawk <<A\nIt's\nA\n"})
    with pytest.raises(ConfigurationError, match="does not show which is used: /app/"):
        find(files, runs_as({"WorkingDir": "/app", "Cmd": ["/run.sh", "dagster"]}), PLACE)


@pytest.mark.parametrize(
    "script",
    [
        "cd $(dirname $0)",
        "cd `dirname $0`",
        'cd "${0%/*}"',
        'cd "$(dirname "$(readlink -f "$0")")" || exit 1',
        'cd "$( cd -- "$( dirname -- "${BASH_SOURCE[0]}" )" &> /dev/null && pwd )"',
        "D=$(cd ./x/.. && pwd); cd /code; cd $D",
        "export PYTHONPATH=$PWD:$PYTHONPATH",
        'cd "$(pwd)"',
        "X=1 # the user's cd\ncd /app",
        "cat > /x <<'EOF'\nIt's\ncd /code\nEOF\ncd /app",
        'cd "$(dirname "$0")"',
        'HERE="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"\ncd "$HERE/x/.."',
        "echo Waiting for the database\ncd /app",
        "log() { echo $1; }\ncd /app",
        'cd "${APP_FOLDER:-/app}"',
        "FOLDER=/app\ncd $FOLDER || exit 1",
        "(cd dbt && dbt deps)",
        "cd dbt && dbt deps && cd -",
        "D=$(cd dbt && pwd)",
        'export PATH="$HOME/.local/bin:$PATH"',
        'export PYTHONPATH="${PYTHONPATH:-}:/none"',
        'export PYTHONPATH="/none${PYTHONPATH:+:$PYTHONPATH}"',
        "until pg_isready; do echo done with waiting; sleep 1; done\ncd .",
        "/usr/bin/migrate.sh\n/usr/bin/migrate.sh && echo migrated",
        '[ "$1" = "" ] && set -- dagster api\ncd /app',
    ],
)
@pytest.mark.parametrize(("source", "root"), [("app/src", SITE), ("app", "app")])
def test_an_ordinary_script_leaves_no_doubt_about_which_copy_is_imported(
    script: str, source: str, root: str
) -> None:
    own = {
        "app/start.sh": f'#!/bin/bash\nset -e\n{script}\nexec "$@"\n'.encode(),
        "usr/bin/migrate.sh": b"#!/bin/sh\ncd /code",
    }
    env = [f"{name}={value}" for name, value in APP.environment]
    runs = runs_as({"WorkingDir": "/app", "Env": env, "Cmd": ["./start.sh", "dagster", "api"]})
    files = tree({**module(source), **module(SITE), **module("code"), **own})
    assert find(files, runs, PLACE) == f"/{root}/{PLACE}"


@pytest.mark.parametrize(
    ("program", "path", "script", "root"),
    [
        ("/docker-entrypoint.sh", "docker-entrypoint.sh",
         "#!/bin/sh\n# don't\nset -e\ncd /code\nexec dagster \\\n api", "code"),
        ("start.sh", "usr/bin/start.sh", "cd $CODE && dagster api grpc -d ../code", "code"),
        ("bash /entrypoint dagster api -d /code", "entrypoint", '#!/bin/sh\nexec "$@"',
         "code"),
        ("tini -- ./run.sh", "app/run.sh", "#!/bin/bash\n. /venv/bin/activate\ndagster", "venv"),
        ("/start dagster api", "start", '#!/bin/sh\ncd /code\nexec "$@"', "code"),
        ("start dagster api", "usr/bin/start", '#!/usr/bin/env bash\ncd /code\nexec "$@"', "code"),
        ("/entrypoint.sh dagster", "entrypoint.sh",
         '#!/bin/sh\nV=/venv\n. "$V/bin/activate"\nexec "$@"', "venv"),
        ("/usr/bin/entrypoint /start.sh", "start.sh", "cd /code && dagster api", "code"),
        ("sh bin/run", "app/bin/run", "#!/bin/sh\ncd /code && dagster api", "code"),
        ("tini -- /start", "start", "#!/srv/sh/venv/bin/python\ncd /code", ""),
        ("/entrypoint.py", "entrypoint.py", "#!/usr/bin/env python\ncd /code", ""),
        ("/run.sh", "run.sh", "cat <<END\nIt's\nEND\ncd /code\nexec dagster api", "code"),
        ("/run.sh", "run.sh", "cd /code # don't\nexec dagster api -d $PWD", "code"),
        ("/run.sh", "run.sh", "cd 'unclosed", ""),
        ("/run.sh", "run.sh", " " * 20_000 + "; cd /code", ""),
        ("/missing.sh", "run.sh", "cd /code", ""),
    ],
)  # fmt: skip
def test_a_script_that_starts_the_program_is_read(
    program: str, path: str, script: str, root: str
) -> None:
    venv = "venv/lib/python3.11/site-packages"
    python = {"venv/bin/python3": "-> python3.11", "venv/bin/python3.11": b""}
    code = {**module("code"), **module(SITE), **module(venv)}
    files = tree(
        {
            **code,
            **python,
            "venv/pyvenv.cfg": b"",
            path: script.encode(),
            "usr/bin/entrypoint": b'#!/bin/sh\nset -e\nexec "$@"',
        }
    )
    env = [*(f"{name}={value}" for name, value in APP.environment), "CODE=/code"]
    runs = runs_as({"WorkingDir": "/app", "Env": env, "Cmd": program.split()})
    roots = {"code": "code", "venv": venv, "": SITE}
    place = f"/{roots[root]}/{PLACE}"
    assert find(files, runs, PLACE) == place
    assert shadowing(files, runs, PLACE, place) is None
