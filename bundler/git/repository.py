"""Finds a repository and asks it questions: environment, overrides, and failures."""

from __future__ import annotations

import os

from bundler.errors import ToolFailed
from bundler.git.words import quoted
from bundler.system import git_directory
from bundler.system.fast_process import Answer, Command, run_concurrently
from bundler.system.fast_tuple import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


DEFAULT_TIMEOUT_SECONDS = 120.0
# Where git did not answer, so that a command with many questions ends.
_STUCK_SECONDS = 10.0
_stuck: set[bytes] = set()
# The first one with rev-parse --show-object-format and add --pathspec-from-file.
OLDEST_GIT = "2.25"
# Turns a partial clone into a whole one.
FETCH_ALL = "git fetch --refetch --no-filter"

# The user's configuration, and how far git looks for a repository.
_KEPT = frozenset(
    {
        "GIT_CEILING_DIRECTORIES",
        "GIT_DISCOVERY_ACROSS_FILESYSTEM",
        "GIT_CONFIG_GLOBAL",
        "GIT_CONFIG_SYSTEM",
        "GIT_CONFIG_NOSYSTEM",
        "GIT_CONFIG_COUNT",
    }
)
_KEPT_PREFIXES = ("GIT_CONFIG_KEY_", "GIT_CONFIG_VALUE_")
# What git hands to a running hook: paths, relative to where git started the hook, ...
_HANDED_PATHS = (
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_COMMON_DIR",
    "GIT_INDEX_FILE",
    "GIT_OBJECT_DIRECTORY",
    "GIT_QUARANTINE_PATH",
    "GIT_SHALLOW_FILE",
)
# ... and others: a list of absolute paths, what ``git -c`` was given.
_HANDED = (*_HANDED_PATHS, "GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_CONFIG_PARAMETERS")
_SET = {
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_NO_REPLACE_OBJECTS": "1",
    "GIT_GRAFT_FILE": os.devnull,  # grafts hide history, as replace refs do
    "GIT_NO_LAZY_FETCH": "1",
    "GIT_ALLOW_PROTOCOL": "none",  # before git 2.44 nothing else stops a lazy fetch
    "GIT_TERMINAL_PROMPT": "0",
    "LC_ALL": "C",
}
_OVERRIDES = (
    "--no-pager",
    "-c",
    "core.fsmonitor=false",
    "-c",
    f"core.hooksPath={os.devnull}",
    "-c",
    "log.showSignature=false",
)
_FATAL = 128


class Question(NamedTuple):
    """One command: the arguments after ``git``, its input, and the exit codes that are answers."""

    arguments: Sequence[str | bytes]
    stdin: bytes = b""
    expected: tuple[int, ...] = (0,)


class Repository(NamedTuple):
    """A repository that git agreed to open. Paths are absolute.

    top: the work tree; None in a bare repository. git_dir: of this work tree; common_dir: shared
    by all of them. algorithm: "sha1" or "sha256". head: the commit checked out; None before the
    first one. fast: asked by plain processes, for the guard; else through GitPython.
    """

    top: bytes | None
    git_dir: bytes
    common_dir: bytes
    algorithm: str
    head: str | None
    environment: dict[str, str]
    fast: bool = False

    def ask(self, *questions: Question, timeout: float = DEFAULT_TIMEOUT_SECONDS) -> list[bytes]:
        """Asks several questions concurrently. Raises `ToolFailed` if git cannot answer one of
        them."""
        place = self.top if self.top is not None else self.git_dir
        answers = _ask(place, questions, self.environment, self.fast, timeout)
        for question, answer in zip(questions, answers, strict=True):
            if answer.exit_code not in question.expected:
                raise _cannot_answer(question.arguments, answer, is_partial=self.is_partial)
        return [answer.stdout for answer in answers]

    @property
    def is_partial(self) -> bool:
        """Whether this is a partial clone, whose commits and index name objects that it lacks."""
        try:
            names = os.listdir(self.common_dir + b"/objects/pack")
        except FileNotFoundError:
            return False
        return any(name.endswith(b".promisor") for name in names)


# --- finding the repository -----------------------------------------------------------------


def environment(
    inherited: Mapping[str, str], handed: Mapping[str, str] | None = None
) -> dict[str, str]:
    """The environment for git: of ``GIT_*`` only the user's configuration and what git gave to a
    hook."""
    cleaned = {
        name: value
        for name, value in inherited.items()
        if not name.startswith("GIT_") or name in _KEPT or name.startswith(_KEPT_PREFIXES)
    }
    return {**cleaned, **(handed or {}), **_SET}


def open_repository(
    root: str | os.PathLike[str], *, from_hook: bool = False, fast: bool = False
) -> Repository | None:
    """The repository that a directory is in; None without one.

    from_hook: whether a hook may be asking, so that what git hands to it (``GIT_INDEX_FILE``, the
    quarantine) counts, provided that it is about this very repository. fast: see `Repository`.
    Raises `ToolFailed` if git is missing, refuses, or cannot answer.
    """
    place = os.path.realpath(os.fsencode(root))
    env = environment(os.environ, handed_over(place, os.environ) if from_hook else None)
    return _locate(place, env, fast=fast)


def initialised(root: str | os.PathLike[str], *, fast: bool = False) -> Repository:
    """The repository at the top of a directory; creates it if there is none. See
    `open_repository`."""
    place = os.path.realpath(os.fsencode(root))
    env = environment(os.environ)
    question = Question(["-c", "init.defaultBranch=main", "init", "--quiet"])
    (answer,) = _ask(place, [question], env, fast)
    repository = _locate(place, env, fast=fast)
    if answer.exit_code or repository is None:
        raise _cannot_answer(question.arguments, answer)
    return repository


def handed_over(place: bytes, inherited: Mapping[str, str]) -> dict[str, str]:
    """What git handed to the running hook; empty if it concerns another repository.

    A hook may ask about any directory (``cd ../app && …``). The files there decide which repository
    it belongs to, never what was handed over, except for a work tree without a ``.git``.
    """
    given = {name: inherited[name] for name in _HANDED if inherited.get(name)}
    try:
        own = git_directory.locate(place)
    except (OSError, ValueError):  # git runs into it too, and reports it
        return {}
    if "GIT_DIR" in given and not (own and _names(given["GIT_DIR"], own)):
        return _of_a_work_tree_without_git(place, own, given)
    if own is None:
        return {}
    base = own.top or own.git_dir
    given |= {name: _absolute(base, given[name]) for name in _HANDED_PATHS if name in given}
    given.pop("GIT_WORK_TREE", None)
    if own.top is None:  # Set explicitly: then git does not check the owner of the repository.
        given["GIT_DIR"] = os.fsdecode(own.git_dir)
    else:
        given.pop("GIT_DIR", None)
    if "GIT_INDEX_FILE" in given and not _may_be_of(own, os.fsencode(given["GIT_INDEX_FILE"])):
        return {}
    return given


def _names(git_dir: str, own: git_directory.Location) -> bool:
    """Whether a ``GIT_DIR`` is this repository's; git may have started the hook in another
    directory."""
    real = os.path.realpath(own.git_dir)
    bases = (os.getcwdb(), own.top or own.git_dir)
    return any(os.path.realpath(os.path.join(base, os.fsencode(git_dir))) == real for base in bases)


def _may_be_of(own: git_directory.Location, index: bytes) -> bool:
    """Whether an index can belong to this repository; one in another git directory cannot."""
    folder = os.path.dirname(os.path.realpath(index))
    if folder == os.path.realpath(own.git_dir):
        return os.path.basename(index) == b"index" or os.path.lexists(index)
    return os.path.lexists(index) and not git_directory.is_git_dir(folder)


def _of_a_work_tree_without_git(
    place: bytes, own: git_directory.Location | None, given: Mapping[str, str]
) -> dict[str, str]:
    """The same for ``git --git-dir=… --work-tree=…``: the work tree has no ``.git`` to be found."""
    here = os.getcwdb()
    tree = os.path.realpath(os.path.join(here, os.fsencode(given.get("GIT_WORK_TREE", "."))))
    outer = own.top or own.git_dir if own else None
    is_innermost = outer is None or (
        "GIT_WORK_TREE" in given and tree != outer and git_directory.is_below(tree, outer)
    )
    if not (is_innermost and git_directory.is_below(place, tree)):
        return {}
    paths = {name: _absolute(here, given[name]) for name in _HANDED_PATHS if name in given}
    return {**given, **paths, "GIT_WORK_TREE": os.fsdecode(tree)}


def _absolute(base: bytes, path: str) -> str:
    return os.path.join(os.fsdecode(base), path)


def _locate(place: bytes, env: dict[str, str], *, fast: bool) -> Repository | None:
    flags = [
        ["--is-bare-repository"],
        ["--is-inside-git-dir"],
        ["--show-object-format"],
        ["--absolute-git-dir"],
        ["--git-common-dir"],
        ["--show-cdup"],
    ]
    words = [word for each in flags for word in each]
    question = Question(["rev-parse", "-q", "--verify", *words, "HEAD"])
    (answer,) = _ask(place, [question], env, fast)
    if _says_there_is_none(answer):
        return None
    *said, head = answer.stdout.split(b"\n")[:-1] or [b""]
    tip: str | None = head.decode(errors="replace")
    if answer.exit_code or len(said) != len(flags):
        # No commit yet, a path with a newline, or something broken: find out which.
        said, tip = _one_by_one(place, flags, env, fast)
    bare, inside, algorithm, git_dir, common_dir, up = said
    if algorithm.startswith(b"--"):  # git repeats an option that it does not know
        raise ToolFailed(
            f"git is older than {OLDEST_GIT}: {_executable()}.",
            hint=f"Install git {OLDEST_GIT} or later, or put it first on PATH.",
        )
    common_dir = os.path.realpath(os.path.join(place, common_dir))
    top = None if b"true" in (bare, inside) else os.path.realpath(os.path.join(place, up))
    pinned = {**env, "GIT_DIR": os.fsdecode(git_dir)}
    if top is not None:
        pinned["GIT_WORK_TREE"] = os.fsdecode(top)
    return Repository(top, git_dir, common_dir, algorithm.decode(), tip, pinned, fast)


def _one_by_one(
    place: bytes, flags: Sequence[Sequence[str]], env: dict[str, str], fast: bool
) -> tuple[list[bytes], str | None]:
    """Asks for each of the flags, and for HEAD, one by one. Raises `ToolFailed`."""
    questions = [Question(["rev-parse", *words]) for words in flags]
    head = Question(["rev-parse", "-q", "--verify", "HEAD"])
    *answers, tip = _ask(place, [*questions, head], env, fast)
    for question, answer in zip(questions, answers, strict=True):
        if answer.exit_code:
            raise _cannot_answer(question.arguments, answer)
    said = [answer.stdout.removesuffix(b"\n") for answer in answers]
    return said, _head(tip, place, env, fast)


def _head(answer: Answer, place: bytes, env: dict[str, str], fast: bool) -> str | None:
    if answer.exit_code == 0:
        return answer.stdout.decode().strip()
    # A branch without a ref means no commit yet; a ref that cannot be read is an error.
    unborn = Question(["symbolic-ref", "-q", "HEAD"])
    (branch,) = _ask(place, [unborn], env, fast)
    refs = Question(["for-each-ref", "--format=%(objectname)", branch.stdout.decode().strip()])
    (known,) = _ask(place, [refs], env, fast)
    if branch.exit_code == known.exit_code == 0 and not known.stdout and not known.stderr:
        return None
    raise _cannot_answer(["rev-parse", "HEAD"], known if known.stderr else answer)


def _says_there_is_none(answer: Answer) -> bool:
    # Without "(or any": a .git that points nowhere is a broken repository, not a missing one.
    return answer.exit_code == _FATAL and b"not a git repository (or any" in answer.stderr


def _complaint(answer: Answer) -> str:
    """The last line on stderr, without git's own "fatal:"."""
    lines = os.fsdecode(answer.stderr).strip().splitlines()
    return lines[-1].removeprefix("fatal: ").removeprefix("error: ") if lines else ""


def _cannot_answer(
    arguments: Sequence[str | bytes], answer: Answer, *, is_partial: bool = False
) -> ToolFailed:
    if b"dubious ownership" in answer.stderr:
        owned = os.fsdecode(answer.stderr.split(b"'")[1])
        return ToolFailed(
            f"git refuses to run: the repository {owned} belongs to another user.",
            hint=f"If you trust it: git config --global --add safe.directory {quoted(owned)}",
        )
    if b"safe.bareRepository" in answer.stderr:
        return ToolFailed(
            "git refuses to run: safe.bareRepository does not allow bare repositories.",
            hint="If you trust this one: git config --global safe.bareRepository all",
        )
    if b"is in submodule '" in answer.stderr:
        path = os.fsdecode(answer.stderr.rpartition(b"is in submodule '")[2].rpartition(b"'")[0])
        return ToolFailed(
            f"git refuses to answer: {path} is a submodule without its own repository.",
            hint=f"Connect it again: git submodule update --init -- {quoted(f':/{path}')}",
        )
    words = [os.fsdecode(word) for word in arguments]
    reason = _complaint(answer) or f"it failed with exit code {answer.exit_code}"
    return ToolFailed(
        f"git failed ({' '.join(words[:2])}): {reason.rstrip('.')}.",
        hint=f"This is a partial clone. Fetch what it lacks: {FETCH_ALL}"
        if is_partial
        else "Repair the repository, then try again.",
    )


def _ask(
    place: bytes,
    questions: Sequence[Question],
    env: Mapping[str, str],
    fast: bool,
    timeout: float = DEFAULT_TIMEOUT_SECONDS,
) -> list[Answer]:
    """fast: by plain processes, as the guard asks; else through GitPython. `runner` says why."""
    git = _executable()
    commands = [
        Command(git, ["-C", place, *_OVERRIDES, *question.arguments], question.stdin)
        for question in questions
    ]

    def note_slow() -> None:
        from bundler import listener  # `typing`, which it imports, is slow

        verbs = dict.fromkeys(os.fsdecode(question.arguments[0]) for question in questions)
        listener.of_process.note(
            f"Still waiting for git ({', '.join(verbs)}): this can take a while in a large "
            "repository or on a slow disk."
        )

    if place in _stuck:
        timeout = min(timeout, _STUCK_SECONDS)
    try:
        if fast:
            return run_concurrently(commands, env, timeout, note_slow)
        from bundler.git.runner import run

        return run(commands, env, timeout, note_slow)
    except ToolFailed:
        _stuck.add(place)
        raise


def _executable() -> str:
    """The path of git. Relative entries of PATH are skipped: a repository could contain its own
    git."""
    for directory in os.environ.get("PATH", os.defpath).split(os.pathsep):
        candidate = f"{directory}/git"
        if directory.startswith("/") and os.access(candidate, os.X_OK):
            return candidate
    raise ToolFailed("git was not found.", hint="Install git, or put it on PATH.")
