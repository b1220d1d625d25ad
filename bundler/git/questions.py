"""The questions, each as the command that answers it and the reading of its answer."""

from __future__ import annotations

import os

from bundler.errors import ToolFailed
from bundler.git.repository import Question, Repository, environment
from bundler.git.words import printable, quoted
from bundler.system import digests, git_directory, index_file
from bundler.system.fast_tuple import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


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
    """The ignore rule that decides over a path. An empty pattern: there is none."""

    path: bytes
    source: bytes
    line: bytes
    pattern: bytes

    @property
    def ignores(self) -> bool:
        return bool(self.pattern) and not self.pattern.startswith(b"!")


class StagedChange(NamedTuple):
    """A path that a commit (or the index) holds and its predecessor holds otherwise."""

    commit: bytes
    path: bytes
    mode_before: bytes
    oid_before: bytes
    mode: bytes
    oid: bytes


def below(directory: bytes, *, ignore_case: bool = False) -> bytes:
    """The pathspec of all that is in a directory, given relative to the top."""
    magic = b":(top,literal,icase)" if ignore_case else b":(top,literal)"
    return magic + directory.rstrip(b"/") + b"/"


def exactly(path: bytes) -> bytes:
    """The pathspec of one path, given relative to the top."""
    return b":(top,literal)" + path


def everywhere(name: bytes, *, ignore_case: bool = False) -> bytes:
    """The pathspec of all that is in any directory of this name (without glob characters)."""
    magic = b":(top,glob,icase)" if ignore_case else b":(top,glob)"
    return magic + b"**/" + name + b"/**"


def index_question(pathspecs: Iterable[bytes]) -> Question:
    """Every entry: also unmerged, intent-to-add, assume-unchanged and skip-worktree ones."""
    return Question(["ls-files", "-z", "-s", "-t", "--full-name", "--", *pathspecs])


def index_entries(answer: bytes) -> list[IndexEntry]:
    """What `index_question` was answered."""
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


def ignored_question() -> Question:
    """What is in the work tree and git ignores; of a directory that is ignored only its name.

    Without a pathspec: git up to 2.39 fails for one with ``--directory``.
    """
    options = ["-z", "-o", "-i", "--directory", "--exclude-standard", "--full-name"]
    return Question(["ls-files", *options])


def empty_tree(repository: Repository) -> str:
    """What a repository without a commit has instead of HEAD: git knows it without an object."""
    digest = digests.new(repository.algorithm, 0)
    digest.update(b"tree 0\0")
    return digest.hexdigest()


def require_whole_index(repository: Repository) -> None:
    """Raises `ToolFailed` for a damaged index: git would read garbage, and exit with 0."""
    given = repository.environment.get("GIT_INDEX_FILE")
    index = os.fsencode(given) if given else repository.git_dir + b"/index"
    shared = [name for name in os.listdir(repository.git_dir) if name.startswith(b"sharedindex.")]
    for path in (index, *(repository.git_dir + b"/" + name for name in shared)):
        try:
            with index_file.RawIndex(path) as raw:
                whole = raw.is_whole()
        except FileNotFoundError:  # nothing was ever added, or the shared one is just replaced
            continue
        except OSError as error:
            raise ToolFailed(f"{printable(path)} cannot be read: {error.strerror}.") from error
        if not whole:
            raise ToolFailed(
                f"The index {printable(path)} is damaged: it does not match its own checksum.",
                hint=f"Rebuild it from HEAD: rm {quoted(os.fsdecode(path))} && git reset",
            )


def ignores_case(repository: Repository) -> bool:
    """Whether names that differ by case are one in this repository."""
    return git_directory.ignores_case(repository.common_dir)


def staged_question(base: str, pathspecs: Iterable[bytes] = ()) -> Question:
    """Where the index differs from a commit or tree; git skips the subtrees that are the same."""
    options = ["--cached", "--raw", "-z", "--no-renames", "--no-ext-diff", "--no-abbrev"]
    return Question(["diff-index", *options, "--ignore-submodules=none", base, "--", *pathspecs])


def sizes(repository: Repository, oids: Sequence[bytes]) -> dict[bytes, int]:
    """The sizes of those objects that are here, by object id."""
    stdin = b"".join(oid + b"\n" for oid in oids)
    (answer,) = repository.ask(Question(["cat-file", "--batch-check", "--buffer"], stdin))
    found = {}
    for line in answer.splitlines():
        oid, kind, *size = line.split(b" ")
        if kind != b"missing":
            found[oid] = int(size[0])
    return found


def rules_question(paths: Iterable[bytes], *, from_index: bool = False) -> Question:
    """Which rule decides over each path. Paths are relative to the top.

    from_index: whether git reads from the index those ignore files that are not checked out. It
    then says of a path that is tracked, or holds what is, that no rule decides over it.
    """
    # "./" keeps a leading colon from being read as pathspec magic, which applies here, too.
    stdin = b"".join(b"./" + path + b"\0" for path in paths)
    options = [*(() if from_index else ("--no-index",)), "-v", "-n", "-z", "--stdin"]
    return Question(["check-ignore", *options], stdin, expected=(0, 1))


def rules(answer: bytes) -> list[IgnoreRule]:
    """What `rules_question` was answered, in its order."""
    fields = answer.split(b"\0")[:-1]
    return [
        IgnoreRule(fields[at + 3].removeprefix(b"./"), *fields[at : at + 3])
        for at in range(0, len(fields), 4)
    ]


def blobs_in_head(repository: Repository, paths: Sequence[bytes]) -> dict[bytes, bytes]:
    """The contents of those paths that are regular files in HEAD."""
    pathspecs = [exactly(path) for path in paths]
    question = Question(["ls-tree", "-z", "--full-tree", "HEAD", "--", *pathspecs])
    (listing,) = repository.ask(question)
    oids = {}
    for record in listing.split(b"\0")[:-1]:
        attributes, _, path = record.partition(b"\t")
        mode, _, oid = attributes.split(b" ")
        if mode.startswith(b"100"):
            oids[path] = oid
    return dict(zip(oids, blobs(repository, list(oids.values())), strict=True))


def blobs(repository: Repository, oids: Sequence[bytes]) -> list[bytes]:
    """The contents of blobs, in order. Raises `ToolFailed` for one that is not here."""
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
                hint="This is a partial clone: fetch the missing objects, then try again.",
            )
        at = end + 1 + int(words[2])
        contents.append(answer[end + 1 : at])
        at += 1
    return contents


def empty_repository(like: Repository, place: bytes) -> Repository:
    """A repository without objects over a directory, for asking what its ignore files say alone.

    It has no configuration of a user or a machine.
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
        "XDG_CONFIG_HOME": os.fsdecode(git_dir),  # git/ignore there would count otherwise
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
    """Where ``core.hooksPath`` says that hooks are; None if they are in the usual place."""
    # Our own override for every question would answer this one: the last value but that one.
    question = Question(["config", "-z", "--get-all", "core.hooksPath"], expected=(0, 1))
    (answer,) = repository.ask(question)
    said = [value for value in os.fsdecode(answer).split("\0")[:-1] if value != os.devnull]
    return said[-1] if said else None


def forget(repository: Repository, paths: Iterable[bytes]) -> None:
    """Takes paths out of the index: the one question that is an order. Files stay as they are."""
    stdin = b"".join(path + b"\0" for path in paths)
    repository.ask(Question(["update-index", "--force-remove", "-z", "--stdin"], stdin))
