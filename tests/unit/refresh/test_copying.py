"""What `shutil.copytree` leaves out while a component writes its state: git decides."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bundler.refresh.checks import LEFT_OUT
from bundler.worker import copying
from tests.support.examples import scaled

# copytree is patched for the rest of a process, so each copy has its own.
SCRIPT = """\
import json, sys
sys.path.insert(0, sys.argv[1])
import copying, shutil
source, target, below = sys.argv[2:5]
leave_out, keep = map(json.loads, sys.argv[5:])
def report(event, **told):
    print(json.dumps(told))
from shutil import copytree
copying.filter_copies(target, leave_out, keep, report)
copytree(source, target + "/" + below)
"""


def copy(
    source: Path, target: Path, *, below: str = "project", keep: tuple[str, ...] = ()
) -> tuple[set[str], dict[str, list[str]]]:
    """The files that were copied, and what was reported."""
    target.mkdir()
    folder = str(Path(copying.__file__).parent)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, folder, source, target, below, json.dumps(LEFT_OUT),
         json.dumps(keep)], capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    files = {path.relative_to(target).as_posix() for path in target.rglob("*") if path.is_file()}
    return files, json.loads(done.stdout.splitlines()[-1])


def git(root: Path, *arguments: str) -> None:
    command = ["git", "-C", root, "-c", "user.name=x", "-c", "user.email=x@x", *arguments]
    subprocess.run(command, check=True, capture_output=True)


def tree(root: Path, *names: str, ignore: str = "", commit: bool = True) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    (root / ".gitignore").write_text(ignore)
    git(root.parent, "init", "-q", root)
    if commit:
        git(root, "add", ".")
        git(root, "commit", "-qm", "x")
    return root


def test_ignored_files_are_left_out_at_every_depth(tmp_path: Path) -> None:
    names = ("a.sql", "b/c.sql", "key.p8", "b/key.p8", "private/deep/x", "b/d/e.secret")
    root = tree(tmp_path / "r", *names, ignore="*.p8\nprivate/\nb/d/*.secret\n")
    files, reported = copy(root, tmp_path / "t")
    assert files == {"project/.gitignore", "project/a.sql", "project/b/c.sql"}
    assert reported["ignored"] == [
        "project/b/d", "project/b/key.p8", "project/key.p8", "project/private",
    ]  # fmt: skip
    assert reported["ignored_count"] == 4


def test_what_git_tracks_ships_in_spite_of_a_rule(tmp_path: Path) -> None:
    root = tree(tmp_path / "r", "a", "b.p8")
    (root / ".gitignore").write_text("*.p8\n")
    assert "project/b.p8" in copy(root, tmp_path / "t")[0]


def test_the_rules_of_the_user_and_of_the_clone_count(tmp_path: Path) -> None:
    root = tree(tmp_path / "r", "a", "b.local", commit=False)
    (root / ".git/info/exclude").write_text("*.local\n")
    assert "project/b.local" not in copy(root, tmp_path / "t")[0]


def test_a_directory_in_a_repository_is_copied_by_the_rules_above_it(tmp_path: Path) -> None:
    root = tree(tmp_path / "r", "dbt/a", "dbt/x/k.p8", "k.p8", ignore="/dbt/x/*.p8\n")
    files, _ = copy(root / "dbt", tmp_path / "t")
    assert files == {"project/a"}


def test_an_ignored_directory_that_is_named_is_copied(tmp_path: Path) -> None:
    root = tree(tmp_path / "r", "a", "made/b", "made/c/d", ignore="made/\n")
    assert copy(root / "made", tmp_path / "t")[0] == {"project/b", "project/c/d"}
    assert copy(root / "made/c", tmp_path / "u")[0] == {"project/d"}


def test_include_keeps_by_name(tmp_path: Path) -> None:
    root = tree(tmp_path / "r", "a", "keys/public.pem", "keys/private.pem", ignore="keys/\n")
    files, _ = copy(root, tmp_path / "t", keep=("project/keys/public.pem",))
    assert files == {"project/.gitignore", "project/a", "project/keys/public.pem"}
    assert "project/keys/private.pem" in copy(root, tmp_path / "u", keep=("private.pem", "keys"))[0]


def test_what_never_ships_is_not_even_walked(tmp_path: Path) -> None:
    root = tree(tmp_path / "r", "a", "env/pyvenv.cfg", commit=False)
    for name in (".venv", "node_modules", ".idea", "env"):
        (root / name).mkdir(exist_ok=True)
        (root / name / "dangling").symlink_to("/nowhere/at/all")
    files, reported = copy(root, tmp_path / "t")
    assert files == {"project/.gitignore", "project/a"}
    assert set(reported["left_out"]) == {
        "project/.git", "project/.idea", "project/.venv", "project/env", "project/node_modules",
    }  # fmt: skip


def test_what_dbt_made_and_needs_is_kept(tmp_path: Path) -> None:
    root = tree(
        tmp_path / "r", "dbt/dbt_project.yml", "dbt/target/manifest.json",
        "dbt/target/partial_parse.msgpack", "dbt/target/run_results.json",
        "dbt/target/compiled/x.sql", "dbt/target/last/manifest.json", "dbt/target/last/x.sql",
        "dbt/dbt_packages/utils/macros/a.sql", "dbt/dbt_packages/utils/dbt_project.yml",
        "dbt/package-lock.yml", "dbt/logs/dbt.log",
        "target/manifest.json", "dbt/other/manifest.json",
        ignore="target/\ndbt_packages/\npackage-lock.yml\nlogs/\nother/\n",
    )  # fmt: skip
    wanted = {
        "project/dbt/dbt_project.yml", "project/.gitignore", "project/dbt/target/manifest.json",
        "project/dbt/target/partial_parse.msgpack", "project/dbt/target/last/manifest.json",
        "project/dbt/dbt_packages/utils/macros/a.sql",
        "project/dbt/dbt_packages/utils/dbt_project.yml", "project/dbt/package-lock.yml",
    }  # fmt: skip
    assert copy(root, tmp_path / "t")[0] == wanted


@pytest.mark.parametrize("local", ["dbt/local", "local"])
def test_what_git_ignores_in_a_local_package_of_dbt_is_left_out(tmp_path: Path, local: str) -> None:
    root = tree(
        tmp_path / "r", "dbt/dbt_project.yml", f"{local}/dbt_project.yml", f"{local}/a.sql",
        f"{local}/customers.csv", f"{local}/target/manifest.json",
        ignore="dbt_packages/\ncustomers.csv\ntarget/\n",
    )  # fmt: skip
    (root / "dbt/dbt_packages").mkdir()
    (root / "dbt/dbt_packages/local").symlink_to(root / local)
    files, _ = copy(root / "dbt", tmp_path / "t")
    assert {file for file in files if "dbt_packages" in file} == {
        "project/dbt_packages/local/dbt_project.yml", "project/dbt_packages/local/a.sql",
        "project/dbt_packages/local/target/manifest.json",
    }  # fmt: skip


def test_declared_directories_of_dbt_are_kept(tmp_path: Path) -> None:
    root = tree(
        tmp_path / "r", "out/parsed/manifest.json", "out/more", "vendor/p/a.sql",
        "other/manifest.json", "other/semantic_manifest.json", ignore="out/\nvendor/\nother/\n",
    )  # fmt: skip
    (root / "dbt_project.yml").write_text(
        'name: x\ntarget-path: "out/parsed" # here\npackages-install-path: vendor\n'
    )
    assert copy(root, tmp_path / "t")[0] == {
        "project/.gitignore", "project/dbt_project.yml", "project/out/parsed/manifest.json",
        "project/vendor/p/a.sql", "project/other/manifest.json",
        "project/other/semantic_manifest.json",
    }  # fmt: skip


def test_copies_to_elsewhere_are_left_alone(tmp_path: Path) -> None:
    root = tree(tmp_path / "r", "a", "k.p8", ignore="*.p8\n")
    (tmp_path / "t2").mkdir()
    script = SCRIPT.replace('target + "/" + below', "below")
    subprocess.run(
        [sys.executable, "-c", script, Path(copying.__file__).parent, root, tmp_path / "t2",
         tmp_path / "elsewhere", "[]", "[]"], check=True,
    )  # fmt: skip
    assert (tmp_path / "elsewhere/k.p8").is_file()


def test_a_repository_that_git_cannot_read_is_an_error(tmp_path: Path) -> None:
    root = tmp_path / "r"
    (root / ".git").mkdir(parents=True)
    (root / "a").write_text("x")
    with pytest.raises(copying.GitError, match="cannot list what it ignores"):
        copying.ignored_below(str(root))


@pytest.mark.slow
@settings(max_examples=scaled(25))
@given(
    rules=st.lists(
        st.sampled_from(("*.p8", "a/", "/b", "!keep.p8", "a/*/c", "**/d", "[bd]", "x y", "\\#z")),
        max_size=4,
    ),
    tracked=st.sets(st.integers(0, 9), max_size=5),
)
def test_exactly_what_git_would_not_add_is_left_out(
    tmp_path_factory: pytest.TempPathFactory, rules: list[str], tracked: set[int]
) -> None:
    root = tmp_path_factory.mktemp("r")
    names = ("k.p8", "keep.p8", "a/x", "a/b/c", "b", "d", "e/d/f", "x y/z", "#z", "e/é")
    tree(root, *names, commit=False)
    git(root, "add", "-f", "--", ".gitignore", *(names[number] for number in tracked))
    (root / ".gitignore").write_text("\n".join([*rules, ""]))
    shipped = {name for name in names if not _is_left_out(root, name)}
    git(root, "add", ".")
    listed = subprocess.run(
        ["git", "-C", root, "ls-files", "-z"], capture_output=True, check=True
    ).stdout
    assert shipped == {os.fsdecode(name) for name in listed.split(b"\0") if name} - {".gitignore"}


def _is_left_out(root: Path, name: str) -> bool:
    return copying.is_ignored(name, copying.ignored_below(str(root)))
