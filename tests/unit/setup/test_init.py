"""`init`: the fewest changes, shown, written on yes, taken back whole."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from bundler.artifacts.image.engine.ignore import excluded, parse
from bundler.cli.init import PART_NAMES
from bundler.errors import ConfigurationError, InputOutputError
from bundler.project.config import read_toml
from bundler.project.survey import survey
from bundler.setup.doctor import DoctorContext, docker
from bundler.setup.file_edits import FileEdit, apply, diff
from bundler.setup.init import PARTS, lines, plan, precommit
from tests.support import forked
from tests.support.init_project import PYPROJECT, make_project
from tests.support.workdir import WorkDir


def _contents(root: Path) -> dict[str, str]:
    return {
        path.relative_to(root).as_posix(): path.read_text()
        for path in root.rglob("*")
        if path.is_file()
    }


def _init(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return forked.said("state-bundler", "init", "--project", root, *arguments)


def test_what_it_writes(tmp_path: Path) -> None:
    root = make_project(tmp_path)
    apply(plan(survey(root)))

    tool = read_toml(root / "pyproject.toml")["tool"]
    assert tool["state-bundler"] == {"max-removed": "20%"}
    assert tool["hatch"]["build"]["artifacts"] == ["**/.local_defs_state/**"]
    assert (root / "pyproject.toml").read_text().startswith(PYPROJECT)
    assert (root / ".gitignore").read_text().splitlines()[-1] == ".local_defs_state"
    assert (root / ".dockerignore").read_text().splitlines()[-1] == "**/.local_defs_state"
    hooks = yaml.safe_load((root / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    assert [hook["id"] for hook in hooks] == ["no-committed-state"]
    workflow = yaml.safe_load((root / ".github/workflows/state-bundler.yml").read_text())
    assert workflow["permissions"] == {"contents": "read"}


def test_what_is_this_machines_stays_out_of_the_image(tmp_path: Path) -> None:
    root = make_project(tmp_path)
    (root / ".env.production").write_text("TOKEN=x\n")
    (root / "shop.p12").write_text("x")
    (root / ".dockerignore").write_text("# ours\n.git\n!**/.netrc\n")
    (root / "Dockerfile").write_text("FROM x\nCOPY .env .\nRUN --mount=source=.aws,target=/a x\n")
    before = _contents(root)
    apply(plan(survey(root)))
    written = (root / ".dockerignore").read_text().splitlines()
    assert [line for line in written if not line.startswith("#")] == [
        ".git", "!**/.netrc", "", "**/.env.*", "**/.envrc", "**/.pypirc", "**/.ssh", "**/id_rsa",
        "**/id_ed25519", "**/.venv", "**/shop.p12", "", "**/.local_defs_state",
    ]  # fmt: skip
    assert plan(survey(root)) == []
    apply(plan(survey(root), remove=True))
    assert _contents(root) == before


def test_what_a_later_dockerfile_would_copy_is_excluded_before_it_exists(tmp_path: Path) -> None:
    root = make_project(tmp_path)
    (root / "Dockerfile").unlink()
    before = _contents(root)
    apply(plan(survey(root)))
    rules = parse((root / ".dockerignore").read_text())
    for path in (".env", "conf/.env.local", ".git", ".venv", "src/shop/defs/.local_defs_state"):
        assert excluded(path, rules), path
    (root / "Dockerfile").write_text("FROM x\nCOPY . .\n")
    (root / ".env").write_text("TOKEN=x\n")
    assert {finding.grade for finding in docker.context(DoctorContext(survey(root)))} == {"ok"}
    (root / "Dockerfile").unlink()
    (root / ".env").unlink()
    apply(plan(survey(root), remove=True))
    assert _contents(root) == before


def test_from_a_folder_the_hook_calls_what_is_installed(tmp_path: Path) -> None:
    root = make_project(tmp_path)  # as in a checkout, where these tests run
    done = _init(root, "--yes")
    assert done.returncode == 0
    assert "Run once per clone to enable the hook: pre-commit install" in done.stderr
    written = (root / ".pre-commit-config.yaml").read_text()
    (hook,) = yaml.safe_load(written)["repos"][0]["hooks"]
    assert (hook["language"], hook["entry"]) == ("system", "state-guard --staged")
    assert "additional_dependencies" not in hook
    assert precommit.remove_entry("repos:\n" + precommit.entry("  ", None)) is None


def test_without_a_project_it_says_so(tmp_path: Path) -> None:
    done = _init(tmp_path, "--yes")
    assert done.returncode == 78
    assert "nothing to configure" in done.stderr


def test_a_program_with_a_project_among_its_tests_is_configured_itself(tmp_path: Path) -> None:
    root = tmp_path / "program"
    example = root / "tests/fixtures/p/pyproject.toml"
    example.parent.mkdir(parents=True)
    (root / ".git").mkdir()
    (root / "pyproject.toml").write_text("[project]\nname = 'program'\nversion = '1'\n")
    assert _init(root, "--yes").returncode == 0
    configured = _contents(root)
    example.write_text(PYPROJECT)
    done = _init(root, "--yes")
    assert (done.returncode, done.stderr.strip()) == (0, "Nothing to change.")
    assert _init(root, "--yes", "--remove").returncode == 0
    assert "[tool.state-bundler]" in configured["pyproject.toml"]
    assert "state-bundler" not in (root / "pyproject.toml").read_text()


_FEED = "[[tool.state-bundler.source]]\nkey = 'feed'\ncommand = ['x', '{state_path}']\npath = 's'\n"


@pytest.mark.parametrize(
    ("repositories", "refused"),
    [
        (["a", "b"], "a, b"),
        (["a"], "a"),
        (["", "b"], "b"),
        (["", "a", "b"], "a, b"),
        ([""], None),
        ([], None),
    ],
)
def test_repositories_below_a_folder_are_configured_one_by_one(
    repositories: list[str], refused: str | None, tmp_path: Path
) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "pyproject.toml").write_text(_FEED)
    for name in repositories:
        (tmp_path / name / ".git").mkdir()
    done = _init(tmp_path, "--yes")
    if refused is None:
        assert done.returncode == 0, done.stderr
        assert (tmp_path / ".gitignore").exists()
    else:
        assert done.returncode == 78
        assert f"in repositories below it: {refused}." in done.stderr
        assert not list(tmp_path.rglob(".gitignore"))


@pytest.mark.parametrize(
    "source", ["5", "['x']", "{}", "[{command = 5}]", "[{command = 'dbt parse'}]", "'x'"]
)
def test_a_malformed_source_is_a_configuration_error(source: str, tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(f"[tool.state-bundler]\nsource = {source}\n")
    (tmp_path / ".git").mkdir()
    with pytest.raises(ConfigurationError, match=r"pyproject\.toml"):
        survey(tmp_path)


def test_a_second_run_changes_nothing_and_remove_takes_everything_back(tmp_path: Path) -> None:
    root = make_project(tmp_path)
    before = _contents(root)
    apply(plan(survey(root)))
    assert plan(survey(root)) == []
    apply(plan(survey(root), remove=True))
    assert _contents(root) == before
    assert plan(survey(root), remove=True) == []


def test_the_diff_is_shown_and_nothing_is_written_where_nobody_can_be_asked(tmp_path: Path) -> None:
    root = make_project(tmp_path)
    before = _contents(root)
    done = _init(root)
    assert done.returncode == 1
    assert "+[tool.state-bundler]" in done.stdout
    assert "pass --yes" in done.stderr
    assert _contents(root) == before


def test_the_diff_is_what_git_apply_takes(tmp_path: Path) -> None:
    root = make_project(tmp_path / "one")
    shown = _init(root, "--yes").stdout
    other = make_project(tmp_path / "other")
    subprocess.run(
        ["git", "apply", "-"], input=shown, text=True, check=True, cwd=other, capture_output=True
    )
    assert _contents(other) == _contents(root)


def test_parts_can_be_left_out(tmp_path: Path) -> None:
    root = make_project(tmp_path)
    without = [f"--without={name}" for name in PART_NAMES if name != "ignore"]
    assert _init(root, "--yes", *without).returncode == 0
    changed = {name for name, text in _contents(root).items() if "state-bundler" in text}
    assert changed == {".gitignore"}


def test_the_names_of_the_parts_on_the_command_line_are_those_that_exist() -> None:
    assert tuple(part.name for part in PARTS) == PART_NAMES


@pytest.mark.parametrize("path", ["src/shop/st[a]r", "src/it's a *", "#x/!y"])
def test_rules_for_a_source_of_any_name(wd: WorkDir, path: str) -> None:
    source = f'[[tool.state-bundler.source]]\nkey = "A"\ncommand = ["true"]\npath = "{path}"\n'
    wd.write("pyproject.toml", source)
    wd.write("Dockerfile", "FROM x\n")
    apply(plan(survey(wd.path)))
    (directory,) = map(str, survey(wd.path).state_directories)
    assert wd.run(["git", "check-ignore", f"{directory}/A/state"]).returncode == 0
    rules = parse((wd.path / ".dockerignore").read_text())
    assert excluded(f"{directory}/A/state", rules)


_SOURCE = '[[tool.state-bundler.source]]\nkey = "A"\ncommand = ["true"]\npath = "state"\n'


@pytest.mark.parametrize(
    ("text", "project", "is_enough"),
    [
        (".local_defs_state\n", PYPROJECT, True),
        ("**/.local_defs_state/\n", PYPROJECT, True),
        ("# Never commit .local_defs_state here.\n", PYPROJECT, False),
        (".local_defs_state\n!.local_defs_state/\n", PYPROJECT, False),
        ("!.local_defs_state/\n.local_defs_state\n", PYPROJECT, True),
        (".local_defs_state\n", _SOURCE, False),
        ("/shop/state\n", _SOURCE, True),
        ("/state\n", _SOURCE, False),
    ],
)
def test_a_rule_in_an_ignore_file_above_is_enough_if_it_ignores_the_state(
    text: str, project: str, is_enough: bool, wd: WorkDir
) -> None:
    wd.write(".gitignore", text)
    root = wd.write("shop/pyproject.toml", project).parent
    (root / "src/shop/defs").mkdir(parents=True)
    edits = plan(survey(root))
    assert (root / ".gitignore" not in [edit.path for edit in edits]) == is_enough
    apply(edits)
    (directory,) = survey(root).state_directories
    assert wd.run(["git", "check-ignore", f"shop/{directory}/A/state"]).returncode == 0


def test_a_project_without_dagster_learns_how_to_name_a_source(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "plain"\nversion = "1"\n')
    (edit,) = plan(survey(tmp_path))
    assert "[[tool.state-bundler.source]]" in (edit.after or "")
    assert "+#   path =" in "\n".join(diff([edit], tmp_path))


@pytest.mark.parametrize(
    ("backend", "expected"),
    [
        ("setuptools.build_meta", ("setuptools", "package-data", "shop")),
        ("poetry.core.masonry.api", ("poetry", "include")),
    ],
)
def test_the_backends_that_drop_ignored_files_are_configured_to_keep_the_state(
    tmp_path: Path, backend: str, expected: tuple[str, ...]
) -> None:
    text = PYPROJECT.replace("hatchling.build", backend)
    root = make_project(tmp_path, text)
    apply(plan(survey(root)))
    found = read_toml(root / "pyproject.toml")["tool"]
    for name in expected:
        found = found[name]
    assert ".local_defs_state/**" in str(found)
    apply(plan(survey(root), remove=True))
    assert (root / "pyproject.toml").read_text() == text


@pytest.mark.parametrize("backend", ["uv_build", "flit_core.buildapi", "pdm.backend"])
def test_backends_that_ship_the_state_are_left_alone(tmp_path: Path, backend: str) -> None:
    root = make_project(tmp_path, PYPROJECT.replace("hatchling.build", backend))
    assert [edit for edit in plan(survey(root)) if "backend leaves" in str(edit.why)] == []


@pytest.mark.parametrize(
    "build",
    [
        '[tool.hatch.build]\nartifacts = ["a", "b"]\n',
        '[tool.hatch.build] # theirs\nartifacts = [\n  "a", # one\n  "b",\n]\n',
        "[tool.hatch.build]\nskip-excluded-dirs = true\n",
        '[tool]\nhatch.build.artifacts = ["a"]\n',
        "[tool.hatch.build]\n",
        "[tool.hatch]\nbuild = { skip-excluded-dirs = true }\n",
        "[tool.hatch]\nbuild = {}\n",
        "[tool]\nhatch = { build = {} }\n",
        '[tool]\nhatch = { build = { artifacts = ["a"] } }\n',
        "[tool.hatch]\nbuild.skip-excluded-dirs = true\n",
    ],
)
def test_a_list_that_is_there_gets_one_more_item(tmp_path: Path, build: str) -> None:
    head = '[project]\nname = "shop"\n[build-system]\nbuild-backend = "hatchling.build"\n'
    text = f'{head}{build}\n[tool.dg.project]\nroot_module = "shop"\n'
    root = make_project(tmp_path, text)
    before = read_toml(root / "pyproject.toml")
    theirs = before["tool"].get("hatch", {}).get("build", {}).get("artifacts", [])
    apply(plan(survey(root)))
    after = read_toml(root / "pyproject.toml")
    assert after["tool"]["hatch"]["build"]["artifacts"] == [*theirs, "**/.local_defs_state/**"]
    assert ("# one" in text) == ("# one" in (root / "pyproject.toml").read_text())
    assert plan(survey(root)) == []
    apply(plan(survey(root), remove=True))
    assert read_toml(root / "pyproject.toml") == before


def test_a_comment_stays_with_the_table_that_follows_it(tmp_path: Path) -> None:
    theirs = "[tool.setuptools.package-data]\nother = ['*.sql']\n\n# About dg.\n"
    text = PYPROJECT.replace("hatchling.build", "setuptools.build_meta")
    text = text.replace("[tool.dg.project]", f"{theirs}[tool.dg.project]")
    root = make_project(tmp_path, text)
    apply(plan(survey(root)))
    said = (root / "pyproject.toml").read_text()
    assert "shop = [" in said[: said.index("# About dg.")]
    assert "# About dg.\n[tool.dg.project]" in said
    apply(plan(survey(root), remove=True))
    assert (root / "pyproject.toml").read_text() == text


def test_a_comment_stays_with_what_follows_a_table_in_parts(tmp_path: Path) -> None:
    parts = (
        "[tool.hatch.build.targets.wheel]\npackages = ['src/shop']\n[tool.x]\n"
        "[tool.hatch.build]\nskip-excluded-dirs = true\n# About dg.\n"
    )
    text = PYPROJECT.replace('[tool.hatch.build.targets.wheel]\npackages = ["src/shop"]\n\n', parts)
    root = make_project(tmp_path, text)
    apply(plan(survey(root)))
    said = (root / "pyproject.toml").read_text()
    assert "artifacts = [" in said[: said.index("# About dg.")]
    assert "# About dg.\n[tool.dg]" in said
    apply(plan(survey(root), remove=True))
    assert (root / "pyproject.toml").read_text() == text


@pytest.mark.parametrize(
    ("table", "way_out"),
    [
        (
            "[tool.dg.project]\nroot_module = 'shop'\n[tool.hatch]\nbuild = 5\n",
            r'Add "\*\*/.local_defs_state/\*\*" to tool.hatch.build.artifacts by hand, or skip it',
        ),
        (
            "[tool]\ndg = { project = { root_module = 'shop' } }\nhatch = { build = 5 }\n",
            "state-bundler init --without backend$",
        ),
        (
            "tool = { dg = { project = { root_module = 'shop' } } }\n",
            r"^Add \[tool.state-bundler\] by hand, or skip it: state-bundler init --without table$",
        ),
    ],
)
def test_what_cannot_be_added_safely_is_an_error(tmp_path: Path, table: str, way_out: str) -> None:
    head = "" if table.startswith("[") else table
    text = f'{head}[build-system]\nbuild-backend = "hatchling.build"\n{"" if head else table}'
    root = make_project(tmp_path, text)
    with pytest.raises(
        ConfigurationError, match=r"pyproject\.toml cannot be changed safely"
    ) as found:
        plan(survey(root))
    assert re.search(way_out, found.value.hint)
    assert plan(survey(root), without=["table", "backend"])


def test_what_was_added_to_our_table_since_stays(tmp_path: Path) -> None:
    root = make_project(tmp_path)
    apply(plan(survey(root)))
    file = root / "pyproject.toml"
    file.write_text(
        file.read_text().replace("[tool.state-bundler]\n", '[tool.state-bundler]\ntimeout = "1m"\n')
    )
    apply(plan(survey(root), remove=True))
    assert read_toml(file)["tool"]["state-bundler"] == {
        "timeout": "1m",
        "max-removed": "20%",
    }


def test_a_workflow_that_was_changed_since_stays(tmp_path: Path) -> None:
    root = make_project(tmp_path)
    apply(plan(survey(root)))
    workflow = root / ".github/workflows/state-bundler.yml"
    workflow.write_text(workflow.read_text() + "# mine\n")
    assert plan(survey(root)) == []
    apply(plan(survey(root), remove=True))
    assert workflow.exists()


PRE_COMMIT_CONFIGS = [
    "repos:\n  - repo: a\n    hooks:\n      - id: x\n",
    "repos:\n- repo: a\n  hooks:\n  - id: x\n",
    "# top\nfail_fast: true\nrepos: # here\n    - repo: a\n      hooks: []\n\nci:\n  skip: [x]\n",
    "repos:\n  # one\n  - repo: a\n    hooks: []\n\n  # two\n  - repo: b\n    hooks: []\nx: 1\n",
]


@pytest.mark.parametrize("text", PRE_COMMIT_CONFIGS)
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_the_pre_commit_entry_goes_to_the_end_of_the_list(text: str, newline: str) -> None:
    text = text.replace("\n", newline)
    before = yaml.safe_load(text)
    added = precommit.add_entry(text)
    assert added is not None
    after = yaml.safe_load(added)
    assert after["repos"][:-1] == before["repos"]
    assert after["repos"][-1]["hooks"][0]["id"] == "no-committed-state"
    assert {**after, "repos": None} == {**before, "repos": None}
    assert precommit.add_entry(added) == added
    assert precommit.remove_entry(added) == text


_LINES = st.lists(st.sampled_from(["", "# c", "*.pyc", "/x/", "!y", "  z"]), max_size=6)


@given(_LINES, st.sampled_from(["\n", "\r\n"]))
def test_a_block_of_patterns_comes_and_goes_without_a_trace(
    theirs: list[str], newline: str
) -> None:
    text = "".join(line + newline for line in theirs) or None
    added = lines.add_block(text, "ours", ["a", "b"])
    assert added is not None
    assert added.startswith(text or "")
    assert lines.add_block(added, "ours", ["a", "b"]) == added
    assert lines.remove_block(added, "ours", ["a", "b"]) == text


@pytest.mark.parametrize("there", ["a", "a/", "**/a", "**/a/", " a "])
def test_a_pattern_that_is_there_in_another_form_is_not_added(there: str) -> None:
    assert lines.add_block(f"{there}\n", "ours", ["a"]) == f"{there}\n"
    assert lines.add_block(f"{there}\n!a\n", "ours", ["a"]) == f"{there}\n!a\n\n# ours\na\n"


def test_a_file_that_changed_since_it_was_shown_is_not_overwritten(tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    first.write_text("old")
    second.write_text("changed by another")
    edits = [FileEdit(first, "old", "new", ()), FileEdit(second, "old", "new", ())]
    with pytest.raises(InputOutputError, match="changed in the meantime"):
        apply(edits)
    assert first.read_text() == "old"


def test_modes_and_links_survive(tmp_path: Path) -> None:
    real = tmp_path / "real"
    real.write_text("old")
    real.chmod(0o640)
    link = tmp_path / "link"
    link.symlink_to(real)
    apply([FileEdit(link, "old", "new", ())])
    assert link.is_symlink()
    assert real.read_text() == "new"
    assert real.stat().st_mode & 0o777 == 0o640


# --- git's own hooks --------------------------------------------------------------------------


def test_git_hooks_come_and_go_and_a_hook_that_was_here_stays(tmp_path: Path) -> None:
    root = tmp_path
    subprocess.run(["git", "init", "--quiet", root], check=True)
    hooks = root / ".git" / "hooks"
    theirs = hooks / "pre-commit"
    theirs.write_text("#!/bin/sh\nexit 0\n")
    before = {path.name: path.read_text() for path in hooks.iterdir()}

    done = _init(root, "--git-hooks")
    assert done.returncode == 0, done.stderr
    assert "state-guard" in theirs.read_text()
    assert (hooks / "pre-commit.before").exists()
    assert not (root / "pyproject.toml").exists()

    assert _init(root, "--git-hooks", "--remove").returncode == 0
    assert {path.name: path.read_text() for path in hooks.iterdir()} == before
    assert "Nothing to undo" in _init(root, "--git-hooks", "--remove").stderr
