"""The quick way through a commit: the index's own bytes, and no git process at all.

It can only say "clean", or nothing: whatever is out of the ordinary (a split, sparse, old or
damaged index, another owner, a project with a table of ours) is for the long way, which asks git.
"""

from __future__ import annotations

import os

from bundler.errors import BundlerError
from bundler.guard.state_paths import NAME, join, mentions_us, project_of, within
from bundler.system.index_file import RawIndex, ignores_case

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_PROJECT = b"pyproject.toml"
# With one of these, where the repository lies is for git to say.
_UNUSUAL = (
    "GIT_WORK_TREE",
    "GIT_COMMON_DIR",
    "GIT_CEILING_DIRECTORIES",
    "GIT_OBJECT_DIRECTORY",
    "PRE_COMMIT_FROM_REF",
)


def look(named: Sequence[str] = ()) -> tuple[bytes, ...] | None:
    """Whether the commit that is being made holds state, as far as the index's bytes can say.

    named: state directories beside those found by name. None: ask git. Empty: certainly none.
    Else certainly none under its own name, but state lies in these directories, relative to the
    top, and could have been copied.
    """
    if any(name in os.environ for name in _UNUSUAL):
        return None
    try:
        located = _locate()
        if located is None:
            return None
        top, git_dir = located
        if any(name.startswith(b"sharedindex.") for name in os.listdir(git_dir)):
            return None
        places = within(top, named)
        fold = ignores_case(_common_dir(git_dir))
        with RawIndex(_index_path(top, git_dir)) as index:
            if not index.is_plain() or not index.is_whole():
                return None
            if _may_hold_state(index, places, ignore_case=fold):
                return None
            projects = sorted(index.paths_ending_in(_PROJECT))
        for project in projects:
            with open(join(top, project), "rb") as stream:
                text = stream.read()
            if mentions_us(text):
                return None
            directory, name = os.path.split(project)
            places += project_of(top, directory, name, text).expected
    except (OSError, ValueError, BundlerError):  # the long way meets it again, and says it
        return None
    return tuple(place for place in places if os.path.isdir(join(top, place)))


def _may_hold_state(index: RawIndex, places: Sequence[bytes], *, ignore_case: bool) -> bool:
    if not ignore_case:
        index.prepare(NAME, [*(place + b"/" for place in places), _PROJECT + b"\0"])
    return index.holds_below(NAME, ignore_case=ignore_case) or any(
        index.holds(place + b"/", ignore_case=ignore_case) for place in places
    )


def _locate() -> tuple[bytes, bytes] | None:
    """The top of the work tree and the git directory, where they lie as usual."""
    here = os.getcwdb()
    if "GIT_DIR" in os.environ:  # a running hook: here is the top
        return here, join(here, os.fsencode(os.environ["GIT_DIR"]))
    while True:
        found = os.path.join(here, b".git")
        if os.path.lexists(found):
            break
        if os.path.lexists(join(here, b"HEAD")):  # a bare repository, which git sees first
            return None
        if here == b"/":
            return None
        here = os.path.dirname(here)
    if os.path.isfile(found):
        with open(found, "rb") as link:
            key, _, place = link.read().rstrip(b"\n").partition(b"gitdir: ")
        if key:
            return None
        found = os.path.join(here, place)
    if os.stat(found).st_uid != os.geteuid() or os.stat(here).st_uid != os.geteuid():
        return None
    return here, found


def _common_dir(git_dir: bytes) -> bytes:
    """Of a linked work tree, the repository's own directory."""
    try:
        with open(join(git_dir, b"commondir"), "rb") as link:
            return os.path.join(git_dir, link.read().rstrip(b"\n"))
    except FileNotFoundError:
        return git_dir


def _index_path(top: bytes, git_dir: bytes) -> bytes:
    given = os.environ.get("GIT_INDEX_FILE")
    return os.path.join(top, os.fsencode(given)) if given else os.path.join(git_dir, b"index")
