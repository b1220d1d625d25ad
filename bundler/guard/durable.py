"""Which state directories a fresh clone protects, too: by rules that HEAD holds itself.

git is asked in an empty work tree that has nothing but HEAD's own ignore files. In most
repositories that is not needed: where the rule that decides *here* is in the root's ignore
file, and every ignore file of HEAD's on the way to the directory is here unaltered, it decides in
a clone as well. What else may be here (ignore files that were never committed, those of one user
or machine) can only have taken protection away, and is not in the clone.
"""

from __future__ import annotations

import os
import stat

from bundler import git
from bundler.guard.state_paths import RULE_FILE, join

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from bundler.guard.index import IndexContents

# A key directory that does not exist stands for the next state to be written.
PROBE = b"state-bundler-probe/state"
_LARGE_BYTES = 1 << 20


def _rule_files(directory: bytes) -> list[bytes]:
    parts = directory.split(b"/")
    return [join(b"/".join(parts[:length]), RULE_FILE) for length in range(len(parts) + 1)]


def durably_protected(
    repository: git.Repository, deciding: Mapping[bytes, git.IgnoreRule], found: IndexContents
) -> frozenset[bytes]:
    """The directories that a fresh clone of HEAD ignores by its own rules.

    deciding: which rule decides over each of them here.
    """
    if repository.head is None or not deciding:
        return frozenset()
    told = _told_by_the_root(repository, deciding, found)
    return told | _asked(repository, [path for path in deciding if path not in told])


def _told_by_the_root(
    repository: git.Repository, deciding: Mapping[bytes, git.IgnoreRule], found: IndexContents
) -> frozenset[bytes]:
    asked = {path for directory in deciding for path in _rule_files(directory)}
    unmerged = {entry.path for entry in found.entries if entry.stage != b"0"}
    root = found.in_head(RULE_FILE)
    if asked & unmerged or not _is_file(root):
        return frozenset()
    # A clone may be on a case-sensitive file system, though this one does not.
    if git.ignores_case(repository):
        return frozenset()
    unaltered = {path for path in asked if _is_as_in_head(repository, path, found.in_head(path))}
    # Of the sources that git names, only this one is certain: core.excludesFile may be a relative
    # path, too, and is then read as though it was at the root.
    return frozenset(
        directory
        for directory, rule in deciding.items()
        if rule.ignores
        and rule.source == RULE_FILE
        and unaltered.issuperset(_rule_files(directory))
    )


def _is_file(there: git.IndexEntry | None) -> bool:
    """Whether git reads rules from it. It reads none from a link."""
    return there is not None and there.mode.startswith(b"100")


def _is_as_in_head(repository: git.Repository, path: bytes, there: git.IndexEntry | None) -> bool:
    """Whether git reads at least the rules here that it reads in a clone."""
    if there is None or not _is_file(there):
        return True
    here = join(repository.top or b"", path)
    try:
        status = os.lstat(here)
        if not stat.S_ISREG(status.st_mode) or status.st_size > _LARGE_BYTES:
            return False
        with open(here, "rb") as stream:
            text = stream.read()
    except OSError:
        return False
    return git.object_id(repository, b"blob", text) == there.oid


def _asked(repository: git.Repository, directories: Collection[bytes]) -> frozenset[bytes]:
    if not directories:
        return frozenset()
    paths = sorted({path for directory in directories for path in _rule_files(directory)})
    contents = git.blobs_in_head(repository, paths)
    if not contents:
        return frozenset()
    probes = {join(directory, PROBE): directory for directory in directories}
    with _Scratch() as place:
        for path, content in contents.items():
            os.makedirs(os.path.dirname(join(place, path)), exist_ok=True)
            with open(join(place, path), "wb") as target:
                target.write(content)
        (answer,) = git.empty_repository(repository, place).ask(git.rules_question(probes))
    return frozenset(probes[rule.path] for rule in git.rules(answer) if rule.ignores)


class _Scratch:
    """A private directory, gone afterwards. `tempfile` takes longer to import than git to ask."""

    def __enter__(self) -> bytes:
        self.takes_sigterm = _set_sigterm(_leave)
        parent = os.path.realpath(os.environ.get("TMPDIR") or "/tmp")  # noqa: S108  # mkdir is safe
        self.path = os.fsencode(f"{parent}/state-guard-{os.urandom(8).hex()}")
        os.mkdir(self.path, 0o700)
        return self.path

    def __exit__(self, *_: object) -> None:
        for directory, below, files in os.walk(self.path, topdown=False):
            for name in files:
                os.unlink(join(directory, name))
            for name in below:
                os.rmdir(join(directory, name))
        os.rmdir(self.path)
        if self.takes_sigterm:
            _set_sigterm(None)


def _leave(number: int, _: object) -> None:
    raise SystemExit(128 + number)


def _set_sigterm(handler: Callable[[int, object], None] | None) -> bool:
    """Sets what SIGTERM does, or resets it, unless the program has set that; whether it was set."""
    import signal  # only here: it is slow

    if signal.getsignal(signal.SIGTERM) not in (signal.SIG_DFL, _leave):
        return False
    try:
        signal.signal(signal.SIGTERM, handler or signal.SIG_DFL)
    except ValueError:  # in another thread than the main one
        return False
    return True
