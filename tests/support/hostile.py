"""What somebody may prepare in a state directory that others then use, by its description.

Each attack gets the state directory and a home outside of the repository, which has a key in
``.ssh/id_ed25519``.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bundler.state.statedir import StateDir
from tests.support.statedirs import OLD, PLACE, publish

NOBODY = 65534
Attack = Callable[[Path, Path], None]
ATTACKS: dict[str, Attack] = {}


def attack(function: Attack) -> Attack:
    ATTACKS[function.__name__.replace("_", " ")] = function
    return function


def write_journal(state: Path, name: str = "journal.json", **fields: object) -> Path:
    staging = state / "@staging"
    staging.mkdir(parents=True, exist_ok=True)
    whole = {"states": {}, "removed": [], "files": [], **fields}
    if name == "set.json":
        whole = fields
    (staging / name).write_text(json.dumps(whole))
    return staging


@attack
def a_journal_next_to_a_link_to_home(state: Path, home: Path) -> None:
    (write_journal(state, files=["id_ed25519"]) / "run").symlink_to(home / ".ssh")


@attack
def a_run_that_is_a_link(state: Path, home: Path) -> None:
    (write_journal(state) / "run").symlink_to(home / ".ssh")
    (state / "@staging/journal.json").unlink()


@attack
def staging_is_a_link(state: Path, home: Path) -> None:
    state.mkdir(parents=True)
    write_journal(home / "fake", removed=["data"], files=["@manifest.json"])
    (home / "fake/@staging/run").mkdir()
    (home / "fake/@staging/run/mine").write_text("mine")
    (state / "@staging").symlink_to(home / "fake/@staging")


@attack
def the_state_directory_is_a_link(state: Path, home: Path) -> None:
    state.parent.mkdir(parents=True, exist_ok=True)
    state.symlink_to(home / ".ssh")


@attack
def a_directory_above_is_a_link(state: Path, home: Path) -> None:
    state.parent.parent.mkdir(parents=True, exist_ok=True)
    if state.parent.exists():
        shutil.rmtree(state.parent)
    state.parent.symlink_to(home / ".ssh")


@attack
def the_journal_is_a_link(state: Path, home: Path) -> None:
    staging = write_journal(state, removed=["products"])
    (staging / "journal.json").rename(home / "journal.json")
    (staging / "journal.json").symlink_to(home / "journal.json")


@attack
def the_journal_is_a_fifo(state: Path, home: Path) -> None:
    (state / "@staging").mkdir(parents=True)
    os.mkfifo(state / "@staging/journal.json")


@attack
def the_journal_is_a_directory(state: Path, home: Path) -> None:
    (state / "@staging/journal.json").mkdir(parents=True)


@attack
def the_journal_has_two_names(state: Path, home: Path) -> None:
    staging = write_journal(state, removed=["products"])
    os.link(staging / "journal.json", home / "other-name")


@attack
def the_journal_belongs_to_another_user(state: Path, home: Path) -> None:
    os.chown(write_journal(state, removed=["products"]) / "journal.json", NOBODY, NOBODY)


@attack
def the_journal_removes_what_no_manifest_names(state: Path, home: Path) -> None:
    write_journal(state, removed=["raw"])
    (state / "raw").mkdir()
    (state / "raw/years-of-work").write_text("x")


@attack
def the_journal_replaces_what_no_manifest_names(state: Path, home: Path) -> None:
    staging = write_journal(state, states={"raw": hash_of("new")})
    for folder, text in ((state / "raw", "years of work"), (staging / "run/raw", "new")):
        folder.mkdir(parents=True)
        (folder / "state").write_text(text)


def hash_of(text: str) -> str:
    line = f"{hashlib.sha256(text.encode()).hexdigest()}  state\n"
    return hashlib.sha256(line.encode()).hexdigest()


@attack
def the_journal_is_damaged(state: Path, home: Path) -> None:
    (write_journal(state) / "journal.json").write_text("{" * 100_000)


@attack
def holder_is_a_link(state: Path, home: Path) -> None:
    (write_journal(state) / "holder").symlink_to(home / ".ssh/id_ed25519")
    (state / "@staging/journal.json").unlink()


@attack
def holder_has_two_names(state: Path, home: Path) -> None:
    staging = write_journal(state)
    (staging / "journal.json").unlink()
    os.link(home / ".ssh/id_ed25519", staging / "holder")


@attack
def lock_is_a_link(state: Path, home: Path) -> None:
    (write_journal(state) / "lock").symlink_to(home / ".ssh/id_ed25519")


@attack
def lock_is_a_dangling_link(state: Path, home: Path) -> None:
    (write_journal(state) / "lock").symlink_to(home / "new-file")


@attack
def lock_is_a_fifo(state: Path, home: Path) -> None:
    os.mkfifo(write_journal(state) / "lock")


@attack
def files_of_ours_are_links(state: Path, home: Path) -> None:
    write_journal(state)
    (state / "@staging/journal.json").unlink()
    for name in (".gitignore", "@manifest.json", "@run.json", "@verify.py"):
        (state / name).symlink_to(home / ".ssh/id_ed25519")


@attack
def the_ignore_file_is_a_link(state: Path, home: Path) -> None:
    state.mkdir(parents=True)
    (state / ".gitignore").symlink_to(home / ".ssh/id_ed25519")


@attack
def the_ignore_file_is_a_dangling_link(state: Path, home: Path) -> None:
    state.mkdir(parents=True)
    (state / ".gitignore").symlink_to(home / "new-file")


@attack
def a_key_directory_is_a_link(state: Path, home: Path) -> None:
    state.mkdir(parents=True)
    publish(StateDir(state, PLACE), OLD)
    (state / "products").symlink_to(home / ".ssh")


@attack
def a_published_key_directory_became_a_link(state: Path, home: Path) -> None:
    publish(StateDir(state, PLACE), {"products": {"state": "old"}, "gone": {"state": "old"}})
    for name in ("products", "gone"):
        shutil.rmtree(state / name)
        (state / name).symlink_to(home / ".ssh")


@attack
def a_set_leads_elsewhere(state: Path, home: Path) -> None:
    publish(StateDir(home / "elsewhere", PLACE), OLD)
    write_journal(home / "elsewhere", removed=["a"], identity="another")
    write_journal(
        state, "set.json", identity="x", members=[".", os.path.relpath(home / "elsewhere", state)]
    )


@attack
def a_set_leads_to_a_folder_without_a_publish(state: Path, home: Path) -> None:
    members = [os.path.relpath(home / ".ssh", state), str(home), "", "../../../..", "a\0b"]
    write_journal(state, "set.json", identity="x", members=members)


@attack
def a_prepared_publish_is_decided_elsewhere(state: Path, home: Path) -> None:
    write_journal(home / "first", "set.json", identity="x", members=["."])
    where = os.path.relpath(home / "first", state)
    staging = write_journal(
        state, "prepared.json", files=["id_ed25519"], decided_in=where, identity="x"
    )
    (staging / "run").symlink_to(home / ".ssh")


@attack
def a_manifest_that_came_along_names_data(state: Path, home: Path) -> None:
    publish(StateDir(state, PLACE), {"raw": {"state": "a"}, "products": {"state": "b"}})
    (state / ".gitignore").unlink()
    shutil.rmtree(state / "@staging")


for _field, _names in {
    "removed": ("../shop", "a/b", "", ".", "..", "/etc", "a\0b", ".git", ".gitignore", "@staging",
                "@manifest.json", "pro\u00e4ducts", "x" * 300, "~"),
    "files": ("id_ed25519", "../fetch.py", "products", ".gitignore", "", "/etc/passwd"),
}.items():  # fmt: skip
    for _name in _names:

        def _names_it(state: Path, home: Path, field: str = _field, name: str = _name) -> None:
            fields: dict[str, Any] = {field: [name]}
            (write_journal(state, **fields) / "run").mkdir()

        ATTACKS[f"{_field} names {_name[:20]!r}"] = _names_it
