"""The questions: each is a git command and the parser of its output."""

from __future__ import annotations

import itertools
import os

from bundler.errors import ToolFailed
from bundler.git.repository import (
    FETCH_ALL,
    Question,
    Repository,
    environment,
    open_repository,
)
from bundler.git.words import printable, quoted
from bundler.system import digests, git_directory, index_file
from bundler.system.fast_tuple import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path


class IndexEntry(NamedTuple):
    """A path in the index or in a tree. Mode in git's octal text, object id in hexadecimal.

    is_sparse: whether the work tree may lack it (skip-worktree).
    """

    path: bytes
    mode: bytes
    oid: bytes
    stage: bytes = b"0"
    is_sparse: bool = False


class IgnoreRule(NamedTuple):
    """The ignore rule that decides about a path. Without a rule the pattern is empty."""

    path: bytes
    source: bytes
    line: bytes
    pattern: bytes

    @property
    def ignores(self) -> bool:
        return bool(self.pattern) and not self.pattern.startswith(b"!")


class StagedChange(NamedTuple):
    """A path that differs between a commit (or the index) and its predecessor."""

    commit: bytes
    path: bytes
    mode_before: bytes
    oid_before: bytes
    mode: bytes
    oid: bytes


def below(directory: bytes, *, ignore_case: bool = False) -> bytes:
    """The pathspec of everything in a directory, given relative to the top."""
    return exactly(directory.rstrip(b"/") + b"/", ignore_case=ignore_case)


def exactly(path: bytes, *, ignore_case: bool = False) -> bytes:
    """The pathspec of one path and everything below it, given relative to the top."""
    return (b":(top,literal,icase)" if ignore_case else b":(top,literal)") + path


def everywhere(name: bytes, *, ignore_case: bool = False) -> list[bytes]:
    """The pathspecs of any path with this name (without glob characters) and everything below."""
    magic = b":(top,glob,icase)" if ignore_case else b":(top,glob)"
    return [magic + b"**/" + name + end for end in (b"", b"/**")]


def index_question(pathspecs: Iterable[bytes]) -> Question:
    """All entries, including unmerged, intent-to-add, assume-unchanged and skip-worktree ones."""
    return Question(["ls-files", "-z", "-s", "-t", "--full-name", "--", *pathspecs])


def in_index(repository: Repository, pathspecs: Iterable[bytes] = ()) -> list[IndexEntry]:
    """The entries of the index; all of them without pathspecs."""
    (answer,) = repository.ask(index_question(pathspecs))
    return index_entries(answer)


def index_entries(answer: bytes) -> list[IndexEntry]:
    """Parses the answer to `index_question`."""
    entries = []
    for record in answer.split(b"\0"):
        if record:
            attributes, _, path = record.partition(b"\t")
            tag, mode, oid, stage = attributes.split(b" ")
            entries.append(IndexEntry(path, mode, oid, stage, tag == b"S"))
    return entries


def addable_question(directories: Iterable[bytes]) -> Question:
    """What ``git add -A`` would take from directories: neither tracked nor ignored.

    Another repository among them is one path, which ends in a slash.
    """
    options = ["-z", "-o", "--exclude-standard", "--full-name"]
    return Question(["ls-files", *options, "--", *map(below, directories)])


def ignored_below(place: Path) -> Iterator[str]:
    """What git ignores below a folder, relative to it; empty if the folder itself is ignored.

    A folder in the result that is followed by entries below it is not ignored itself: all of its
    contents are.
    """
    repository = open_repository(place, fast=True)
    if repository is None or repository.top is None:
        return
    # Without a pathspec: git up to 2.39 fails for one with --directory.
    options = ["-z", "-o", "-i", "--directory", "--exclude-standard", "--full-name"]
    (answer,) = repository.ask(Question(["ls-files", *options]))
    listed = sorted(set(answer.split(b"\0")) - {b""})
    inside = os.path.relpath(os.path.realpath(os.fsencode(place)), repository.top) + b"/"
    prefix = b"" if inside == b"./" else inside
    for path, following in itertools.pairwise([*listed, b""]):
        is_opened = path.endswith(b"/") and following.startswith(path)
        if not is_opened and path.startswith(prefix) and path != prefix:
            yield os.fsdecode(path[len(prefix) :].rstrip(b"/"))


def empty_tree(repository: Repository) -> str:
    """The empty tree, which replaces HEAD before the first commit: git knows it without an
    object."""
    return object_id(repository, b"tree", b"").decode()


def object_id(repository: Repository, kind: bytes, content: bytes) -> bytes:
    """The id that this repository gives to an object, in hexadecimal."""
    return digests.object_id(repository.algorithm, kind, content).hex().encode()


def require_whole_index(repository: Repository) -> None:
    """Raises `ToolFailed` for a damaged index: git would read garbage and exit with 0."""
    for path in _index_files(repository):
        try:
            with index_file.RawIndex(path) as raw:
                whole = raw.is_whole()
        except FileNotFoundError:  # nothing was ever added, or the shared index is being replaced
            continue
        except OSError as error:
            raise ToolFailed(f"{printable(path)} cannot be read: {error.strerror}.") from error
        if not whole:
            raise ToolFailed(
                f"The index {printable(path)} is damaged: it does not match its own checksum.",
                hint=f"Rebuild it from HEAD: rm {quoted(os.fsdecode(path))} && git reset",
            )


def _index_files(repository: Repository) -> list[bytes]:
    """The index, and what a split one refers to. Any of them may not exist."""
    given = repository.environment.get("GIT_INDEX_FILE")
    index = os.fsencode(given) if given else repository.git_dir + b"/index"
    names = (name for name in os.listdir(repository.git_dir) if name.startswith(b"sharedindex."))
    return [index, *(repository.git_dir + b"/" + name for name in names)]


def index_bytes(repository: Repository) -> int:
    """The size of the index in bytes, about a hundred for each entry."""
    return sum(os.path.getsize(path) for path in _index_files(repository) if os.path.exists(path))


def ignores_case(repository: Repository) -> bool:
    """Whether names that differ only in case are the same in this repository."""
    if not git_directory.may_ignore_case(repository.common_dir):
        return False
    options = ["--type=bool", "--get", "core.ignoreCase"]
    (answer,) = repository.ask(Question(["config", *options], expected=(0, 1)))
    return answer == b"true\n"


def staged_question(base: str, pathspecs: Iterable[bytes] = ()) -> Question:
    """Where the index differs from a commit or tree; git skips identical subtrees."""
    options = ["--cached", "--raw", "-z", "--no-renames", "--no-ext-diff", "--no-abbrev"]
    return Question(["diff-index", *options, "--ignore-submodules=none", base, "--", *pathspecs])


def existing(repository: Repository, oids: Iterable[bytes]) -> set[bytes]:
    """Those objects that exist here; git before 2.44 would fetch a missing one to say so."""
    options = ["--objects", "--no-object-names", "--ignore-missing", "--missing=allow-any"]
    stdin = b"".join(oid + b"\n" for oid in oids)
    (answer,) = repository.ask(Question(["rev-list", "--no-walk", *options, "--stdin"], stdin))
    return set(answer.split())


def sizes(repository: Repository, oids: Sequence[bytes]) -> dict[bytes, int]:
    """The sizes of those objects that exist here, by object id."""
    stdin = b"".join(oid + b"\n" for oid in oids)
    (answer,) = repository.ask(Question(["cat-file", "--batch-check", "--buffer"], stdin))
    found = {}
    for line in answer.splitlines():
        oid, kind, *size = line.split(b" ")
        if kind != b"missing":
            found[oid] = int(size[0])
    return found


def rules_question(paths: Iterable[bytes], *, from_index: bool = False) -> Question:
    """Which rule decides about each path. Paths are relative to the top.

    from_index: whether git reads ignore files that are not checked out from the index. It then
    reports no rule for a path that is tracked or contains tracked files.
    """
    # "./" keeps a leading colon from being read as pathspec magic, which applies here, too.
    stdin = b"".join(b"./" + path + b"\0" for path in paths)
    options = [*(() if from_index else ("--no-index",)), "-v", "-n", "-z", "--stdin"]
    return Question(["check-ignore", *options], stdin, expected=(0, 1))


def rules(answer: bytes) -> list[IgnoreRule]:
    """Parses the answer to `rules_question`, in the same order."""
    fields = answer.split(b"\0")[:-1]
    return [
        IgnoreRule(fields[at + 3].removeprefix(b"./"), *fields[at : at + 3])
        for at in range(0, len(fields), 4)
    ]


def blobs_in_head(repository: Repository, paths: Sequence[bytes]) -> dict[bytes, bytes]:
    """The contents of those paths that are regular files in HEAD."""
    entries = tree_entries(repository, "HEAD", map(exactly, paths))
    oids = {entry.path: entry.oid for entry in entries if entry.mode.startswith(b"100")}
    return dict(zip(oids, blobs(repository, list(oids.values())), strict=True))


def tree_entries(
    repository: Repository, tree: str, pathspecs: Iterable[bytes] = ()
) -> list[IndexEntry]:
    """The entries of a tree and of the trees in it."""
    question = Question(["ls-tree", "-r", "-z", "--full-tree", tree, "--", *pathspecs])
    (answer,) = repository.ask(question)
    entries = []
    for record in answer.split(b"\0")[:-1]:
        attributes, _, path = record.partition(b"\t")
        mode, _, oid = attributes.split(b" ")
        entries.append(IndexEntry(path, mode, oid))
    return entries


def blobs(repository: Repository, oids: Sequence[bytes]) -> list[bytes]:
    """The contents of blobs, in order. Raises `ToolFailed` for a missing blob."""
    if not oids:
        return []
    stdin = b"".join(oid + b"\n" for oid in oids)
    (answer,) = repository.ask(Question(["cat-file", "--batch"], stdin))
    contents = []
    at = 0
    for oid in oids:
        end = answer.index(b"\n", at)
        words = answer[at:end].split(b" ")
        if words[-1] == b"missing":
            raise ToolFailed(
                f"The object {oid.decode()} is not in this clone.",
                hint=f"Fetch what a partial clone lacks: {FETCH_ALL}",
            )
        at = end + 1 + int(words[2])
        contents.append(answer[end + 1 : at])
        at += 1
    return contents


def empty_repository(like: Repository, place: bytes) -> Repository:
    """A temporary repository without objects over a directory, to evaluate its ignore files alone.

    It ignores the configuration of the user and the machine.
    """
    git_dir = place + b"/.git"
    for name in (b"objects", b"refs"):
        os.makedirs(git_dir + b"/" + name)
    with open(git_dir + b"/HEAD", "wb") as head:
        head.write(b"ref: refs/heads/none\n")
    variables = {
        name: value
        for name, value in environment(like.environment).items()
        if not name.startswith("GIT_CONFIG")
    }
    variables |= {
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_SYSTEM": os.devnull,
        "XDG_CONFIG_HOME": os.fsdecode(git_dir),  # without it, the user's git/ignore would count
        "GIT_DIR": os.fsdecode(git_dir),
        "GIT_WORK_TREE": os.fsdecode(place),
    }
    return Repository(place, git_dir, git_dir, like.algorithm, None, variables, like.fast)


def changes(answer: bytes, commit: bytes = b"") -> list[StagedChange]:
    """Reads git's ``--raw -z`` format without renames, of two trees or (``-c``) of a merge."""
    found = []
    fields = iter(answer.split(b"\0"))
    for field in fields:
        if not field.startswith(b":"):
            commit = field.strip() or commit
            continue
        parents = len(field) - len(field.lstrip(b":"))
        words = field[parents:].split(b" ")
        modes, oids = words[: parents + 1], words[parents + 1 : 2 * parents + 2]
        found.append(StagedChange(commit, next(fields), modes[0], oids[0], modes[-1], oids[-1]))
    return found


def hooks_path(repository: Repository) -> str | None:
    """The value of ``core.hooksPath``; None if hooks are in the default place."""
    (answer,) = repository.ask(Question(["config", "-z", "--get-all", "core.hooksPath"]))
    # The last value is our own override, which is set for every question: take the one before.
    said = os.fsdecode(answer).split("\0")[:-2]
    return said[-1] if said else None


def forget(repository: Repository, paths: Iterable[bytes]) -> None:
    """Removes paths from the index; the files stay. The only question that changes anything."""
    stdin = b"".join(path + b"\0" for path in paths)
    repository.ask(Question(["update-index", "--force-remove", "-z", "--stdin"], stdin))
