"""The safe part of mending: state out of the index, the rule into the ignore file. Nothing else.

No file of the work tree is touched but the root's ``.gitignore``, which only grows; no commit is
made, and none is rewritten. What is left is said by asking again.
"""

from __future__ import annotations

import os

from bundler import git
from bundler.errors import InputOutputError
from bundler.guard.moments import open_or_refuse
from bundler.guard.state_paths import NAME, RULE_FILE, join, within
from bundler.guard.worktree import ignore_rule

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bundler.guard.verdict import Verdict

_MANIFEST = b"@manifest.json"
_UNPROTECTED = ("state-unprotected", "protection-missing", "protection-local")


def fix(root: str | os.PathLike[str], verdict: Verdict, named: Sequence[str] = ()) -> Iterator[str]:
    """Mends what can be mended safely, and says what it did, a sentence each.

    Findings in submodules are left: each is a repository of its own. So are those in a configured
    directory that nothing was published to: its files may be anything. named: state directories
    that the user named.
    Raises `ToolFailed` where git refuses, `InputOutputError` where the file cannot be written.
    """
    repository = open_or_refuse(root)
    top = repository.top
    if top is None:
        return
    known = {os.fsdecode(path) for path in within(top, named)}
    foreign = [
        each
        for each in verdict.directories
        if each not in known and not _is_ours(top, os.fsencode(each))
    ]
    ours = [
        finding
        for finding in verdict.findings
        if not finding.inside
        and not any(f"{finding.where}/".startswith(f"{each}/") for each in foreign)
    ]
    paths = [os.fsencode(each.where) for each in ours if each.rule == "state-in-index"]
    if paths:
        git.forget(repository, paths)
        for path in paths:
            yield f"{git.printable(path)} was taken out of the index; the file stays."
    directories = [os.fsencode(each.where) for each in ours if each.rule in _UNPROTECTED]
    for rule in dict.fromkeys(map(ignore_rule, directories)):
        if _append(join(top, RULE_FILE), rule):
            yield f"The rule {os.fsdecode(rule)} was added to .gitignore; commit that file."


def _is_ours(top: bytes, directory: bytes) -> bool:
    """Whether a state directory is for state alone."""
    place = join(top, directory)
    if NAME in directory.split(b"/") or not os.path.isdir(place):
        return True
    names = os.listdir(place)
    return _MANIFEST in names or set(names) <= {RULE_FILE}


def _append(path: bytes, rule: bytes) -> bool:
    """Adds a line, unless it is there. Raises `InputOutputError`."""
    try:
        # Not through a link: git does not read a linked ignore file, and the target is another's.
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        with open(os.open(path, flags, 0o666), "r+b") as stream:
            text = stream.read()
            if rule in text.splitlines():
                return False
            stream.write((b"\n" if text and not text.endswith(b"\n") else b"") + rule + b"\n")
    except OSError as error:
        raise InputOutputError(
            f"{git.printable(path)} cannot be written: {error.strerror}."
        ) from error
    return True
