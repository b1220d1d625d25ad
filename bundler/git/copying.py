"""A repository for a copy of some of its files, with the same ignore rules and the same tag.

Build backends ask git: for what is ignored, for what is tracked, for the version.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress

from bundler.errors import ToolFailed
from bundler.git.repository import Question, Repository, initialised, open_repository
from bundler.system.git_directory import read_regular

_SETTINGS = (
    *("commit.gpgsign=false", "tag.gpgsign=false", "tag.forceSignAnnotated=false"),
    *("user.name=Copy", "user.email=copy@none"),
)
_OPTIONS = [word for setting in _SETTINGS for word in ("-c", setting)]


def copy_repository(top: str | os.PathLike[str], copy: str | os.PathLike[str]) -> None:
    """Makes `copy` a repository like that of the work tree `top`.

    Its one commit holds those of the copied files that `top` tracks, and has the newest tag of
    `top`. Raises `ToolFailed` if git cannot do it.
    """
    original = open_repository(top, fast=True)
    made = initialised(copy, fast=True)
    place = os.path.realpath(os.fsencode(copy))
    if original is None or original.top is None:
        return
    if made.common_dir != place + b"/.git":
        raise ToolFailed(f"{os.fsdecode(copy)} is part of another repository.")
    _copy_rules(original, made)
    (tracked,) = original.ask(Question(["ls-files", "-z"]))
    paths = [path for path in tracked.split(b"\0") if path and os.path.lexists(place + b"/" + path)]
    given = ["--pathspec-from-file=-", "--pathspec-file-nul"]
    if paths:
        made.ask(Question(["--literal-pathspecs", "add", "--force", *given], b"\0".join(paths)))
    made.ask(Question([*_OPTIONS, "commit", "--quiet", "--allow-empty", "-m", "Copy"]))
    for tag in _newest_tag(original):
        made.ask(Question([*_OPTIONS, "tag", "--message=Copy", tag]))


def _copy_rules(original: Repository, made: Repository) -> None:
    """Copies the rules that are in no file of the work tree; no filter runs on the copy's files."""
    os.makedirs(made.git_dir + b"/info", exist_ok=True)
    with open(made.git_dir + b"/info/attributes", "wb") as stream:
        stream.write(b"* -filter -text\n")
    with suppress(OSError), open(made.git_dir + b"/info/exclude", "ab") as stream:
        stream.write(read_regular(original.common_dir + b"/info/exclude"))


def _newest_tag(original: Repository) -> Iterator[bytes]:
    if original.head is not None:
        question = Question(["describe", "--tags", "--abbrev=0"], expected=(0, 128))
        (answer,) = original.ask(question)
        yield from answer.split()
