"""The safe part of fixing: state out of the index, the rule into the ignore file. Nothing else.

No file of the work tree is touched but the root's ``.gitignore``, which only grows; no commit is
made, and none is rewritten. What is left is said by asking again.
"""

from __future__ import annotations

import os

from bundler import git
from bundler.errors import InputOutputError
from bundler.guard.fixes import append, rule_for, target_of
from bundler.guard.moments import open_or_refuse
from bundler.guard.state_paths import NAME, RULE_FILE, join, within

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bundler.guard.verdict import GuardVerdict

_MANIFEST = b"@manifest.json"
_UNPROTECTED = ("state-unprotected", "protection-missing", "protection-local")


def fix(
    root: str | os.PathLike[str], verdict: GuardVerdict, named: Sequence[str] = ()
) -> Iterator[str]:
    """Fixes what can be fixed safely, and returns a message for each fix.

    Findings in submodules are left: each is its own repository. So are those in a configured
    directory that nothing was published to: its files may be anything. named: state directories
    that the user named.
    Raises `ToolFailed` if git refuses, `InputOutputError` if the file cannot be written.
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
            yield f"{git.printable(path)} was removed from the index; the file stays."
    directories = [os.fsencode(each.where) for each in ours if each.rule in _UNPROTECTED]
    if not directories:
        return
    in_index = {it.path for it in git.in_index(repository, [git.exactly(RULE_FILE)])}
    target = target_of(top, b"", None, in_index)
    if target.problem or not target.is_here:  # the verdict gives the reason and the fix
        return
    for rule in dict.fromkeys(map(rule_for, directories)):
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
    try:
        return append(path, rule)
    except OSError as error:
        raise InputOutputError(
            f"{git.printable(path)} cannot be written: {error.strerror}."
        ) from error
