"""The fast check of a commit: reads the bytes of the index and starts no git process.

It can only answer "clean". Everything unusual (a split, sparse, old or
damaged index, another owner, a source behind a link, a project file that is not staged) is left to
the full check, which asks git.
"""

from __future__ import annotations

import os

from bundler.errors import BundlerError
from bundler.guard.state_paths import NAME, join, project_of, read, within
from bundler.system import digests
from bundler.system.git_directory import locate, may_ignore_case, read_regular
from bundler.system.index_file import RawIndex

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bundler.guard.state_paths import GuardedProject

_PROJECT = b"pyproject.toml"
_DG = b"dg.toml"
_ENDS = (b"/", b"\0")
# If one of these is set, only git knows where the repository is.
_UNUSUAL = (
    "GIT_WORK_TREE",
    "GIT_COMMON_DIR",
    "GIT_CEILING_DIRECTORIES",
    "GIT_OBJECT_DIRECTORY",
    "PRE_COMMIT_FROM_REF",
)


def quick_check(named: Sequence[str] = ()) -> tuple[bytes, ...] | None:
    """Whether the commit that is being made holds state, as far as the index's bytes can say.

    named: state directories next to those found by name. None: ask git. Empty: certainly none.
    Else certainly none under its own name, but state is in these directories, relative to the
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
        index_path = _index_path(top, git_dir)
        if index_path is None:
            return None
        places = within(top, named)
        fold = may_ignore_case(_common_dir(git_dir))
        with RawIndex(index_path) as index:
            if not index.is_plain() or not index.is_whole():
                return None
            if _may_hold_state(index, places, ignore_case=fold):
                return None
            for project in _projects(index, top):
                if _may_be_state_of(project, index, top, ignore_case=fold):
                    return None
                places += (*project.sources, *project.expected)
    except (OSError, ValueError, BundlerError):  # the full check reports it
        return None
    return tuple(place for place in places if os.path.isdir(join(top, place)))


def _may_hold_state(index: RawIndex, places: Sequence[bytes], *, ignore_case: bool) -> bool:
    if not ignore_case:
        texts = [place + end for place in places for end in _ENDS]
        index.prepare(NAME, [*texts, NAME + b"\0", _PROJECT + b"\0"])
    return (
        index.holds_below(NAME, ignore_case=ignore_case)
        or index.holds(NAME + b"\0", ignore_case=ignore_case)
        or any(_holds(index, place, ignore_case=ignore_case) for place in places)
    )


def _projects(index: RawIndex, top: bytes) -> Iterator[GuardedProject]:
    """Raises `ValueError` for one that is not staged as it is on disk."""
    for path, before in sorted(index.entries_ending_in(_PROJECT).items()):
        text = read_regular(join(top, path))
        if not _is_staged(text, path, before):
            raise ValueError("an edit that is not staged")
        directory = os.path.dirname(path)
        yield project_of(top, directory, _PROJECT, text)
        yield project_of(top, directory, _DG, read(join(top, join(directory, _DG))))


def _is_staged(text: bytes, path: bytes, before: bytes) -> bool:
    """Whether the index has a file as it is on disk. before: see `RawIndex.entries_ending_in`."""
    flags = min(len(path), 0xFFF).to_bytes(2, "big")
    return any(
        before.endswith(digests.object_id(algorithm, b"blob", content) + flags)
        for content in (text, text.replace(b"\r\n", b"\n"))  # git may have changed the line ends
        for algorithm in ("sha1", "sha256")
    )


def _holds(index: RawIndex, place: bytes, *, ignore_case: bool) -> bool:
    """Whether the index may hold something below a path, or a submodule there."""
    return any(index.holds(place + end, ignore_case=ignore_case) for end in _ENDS)


def _may_be_state_of(
    project: GuardedProject, index: RawIndex, top: bytes, *, ignore_case: bool
) -> bool:
    """Whether the index may hold a project's state: in its directories, or where links lead."""
    return any(_holds(index, it, ignore_case=ignore_case) for it in project.sources) or any(
        _leads_elsewhere(top, it) for it in (*project.sources, *project.expected)
    )


def _leads_elsewhere(top: bytes, place: bytes) -> bool:
    """Whether a state directory is where links lead."""
    return os.path.realpath(join(top, place)) != os.path.join(os.path.realpath(top), place)


def _locate() -> tuple[bytes, bytes] | None:
    """The top of the work tree and the git directory, if they are as usual."""
    own = locate(os.getcwdb())
    if own is None or own.top is None:
        return None
    top, git_dir = own.top, os.path.realpath(own.git_dir)
    given = os.environ.get("GIT_DIR")
    if given and os.path.realpath(os.path.join(top, os.fsencode(given))) != git_dir:
        return None  # a hook of another repository
    if os.stat(git_dir).st_uid != os.geteuid() or os.stat(top).st_uid != os.geteuid():
        return None
    return top, git_dir


def _common_dir(git_dir: bytes) -> bytes:
    """Of a linked work tree, the repository's own directory."""
    try:
        return os.path.join(git_dir, read_regular(join(git_dir, b"commondir")).rstrip(b"\n"))
    except FileNotFoundError:
        return git_dir


def _index_path(top: bytes, git_dir: bytes) -> bytes | None:
    """The index of the commit that is being made; None if it may be another repository's."""
    given = os.environ.get("GIT_INDEX_FILE")
    if not given:
        return os.path.join(git_dir, b"index")
    path = os.path.join(top, os.fsencode(given))
    return path if os.path.realpath(os.path.dirname(path)) == git_dir else None
