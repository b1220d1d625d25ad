"""The expected failures: each class has its own exit code, each error a message and a hint.

The codes follow ``sysexits.h`` where one fits. A failing child build is the exception: its exit
code is passed through (`ChildFailed`).
"""

from __future__ import annotations

import errno
import os

# Not from `typing`, whose import takes longer than a guard run.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import ClassVar

    from typing_extensions import Self


class BundlerError(Exception):
    """An expected failure.

    what: a message that says what happened, to which key or file. Never contains a secret.
    hint: what the user can do; may be empty.
    key: the defs state key, if any. problem: `what` without the key (`of_key`), for a line that
    already begins with it.
    where: the file and line that declare what failed, such as ``defs/shop/defs.yaml:1``.
    why: the reason that it matters, if the message does not say so.
    headline: the message to print, if `details` has a line for each finding, by its rule.
    conclusion: what the failure means for the whole run. log: a file that says more.
    """

    exit_code: ClassVar[int]
    title: ClassVar[str]
    conclusion = ""
    log = ""
    headline = ""
    details: tuple[tuple[str, tuple[str, ...]], ...] = ()

    def __init__(
        self, what: str, *, hint: str = "", key: str | None = None, why: str = "", where: str = ""
    ) -> None:
        super().__init__(what)
        self.what = what
        self.hint = hint
        self.key = key
        self.why = why
        self.where = where
        self.problem = what

    @classmethod
    def of_key(cls, key: str, problem: str, *, hint: str = "") -> Self:
        """An error about a key: its message begins with the key."""
        error = cls(f"{key}: {problem}", hint=hint, key=key)
        error.problem = problem
        return error

    def __str__(self) -> str:
        return self.what

    def rename(self, old: str, new: str) -> None:
        """Shows a path as the user knows it, not the temporary one."""
        self.what, self.problem = self.what.replace(old, new), self.problem.replace(old, new)
        self.hint, self.headline = self.hint.replace(old, new), self.headline.replace(old, new)
        self.details = tuple(
            (rule, tuple(line.replace(old, new) for line in lines)) for rule, lines in self.details
        )


class Findings(BundlerError):
    """A check found something: guard, verify's policy, diff."""

    exit_code = 1
    title = "findings"


class UsageError(BundlerError):
    exit_code = 2
    title = "usage"


class BadData(BundlerError):
    """The API's answer is malformed, empty, or much smaller than before."""

    exit_code = 65
    title = "bad data"


class Unavailable(BundlerError):
    """An external API is unreachable, timed out, or sent an incomplete answer."""

    exit_code = 69
    title = "unavailable"


class Bug(BundlerError):
    exit_code = 70
    title = "bug in state-bundler"


class ToolFailed(BundlerError):
    """git, docker, a registry or pex failed or is missing."""

    exit_code = 71
    title = "tool failed"


class InputOutputError(BundlerError):
    exit_code = 74
    title = "input/output"


_WHAT_TO_DO = {
    errno.ENOSPC: "Free some disk space, then run the command again.",
    errno.EDQUOT: "Your disk quota is exhausted: free some space, then run the command again.",
    errno.EROFS: "The file system is read-only: remount it, or choose another path.",
    errno.EACCES: "Check the owner and the permissions.",
    errno.EPERM: "Check the owner and the permissions.",
    errno.EIO: "The disk or network file system failed: check the system log.",
    errno.EMFILE: "Allow more open files (ulimit -n), then run the command again.",
    errno.ENFILE: "The system has too many open files: close some programs.",
    errno.EBADF: "The stream is closed: redirect it to a file or /dev/null.",
}


def io_failure(error: OSError, path: str | os.PathLike[str] | None = None) -> InputOutputError:
    """An operating system error as one of ours, with the file's name and a hint.

    path: the file, if the error does not name one.
    """
    named, reason = error.filename, error.strerror or str(error)
    if error.errno is None and error.args and isinstance(error.args[0], list) and error.args[0]:
        _, named, reason = error.args[0][0]  # `shutil.Error` lists the files that were not copied
        reason = str(reason).partition("] ")[2].partition(": ")[0] or str(reason)
    where = os.fsdecode(named) if isinstance(named, (str, bytes, os.PathLike)) else path
    where = where if where is None else _without_mark(os.fsdecode(where))
    hint = _WHAT_TO_DO.get(error.errno or 0, "")
    if where is None:
        what = f"A file could not be read or written: {reason}."
    else:
        what = f"{where}: {reason}."
    return InputOutputError(what, hint=hint)


def _without_mark(path: str) -> str:
    """The path that a file is to have in the end, for one with a temporary name."""
    import re

    return re.sub(r"(^|/)\.([^/]+)\.state-bundler-[a-z0-9_]{8}(?=/|$)", r"\1\2", path)


def unreadable(path: object, error: OSError) -> InputOutputError:
    """A file or directory that cannot be read, with a hint."""
    hint = _WHAT_TO_DO.get(error.errno or 0, "")
    return InputOutputError(f"{path} cannot be read: {error.strerror}.", hint=hint)


class Locked(BundlerError):
    exit_code = 75
    title = "locked"


class VerificationFailed(BundlerError):
    """An artifact is malformed, has no manifest, or does not match it."""

    exit_code = 76
    title = "verification failed"


class CredentialsRefused(BundlerError):
    exit_code = 77
    title = "credentials refused"


class ConfigurationError(BundlerError):
    exit_code = 78
    title = "configuration"


class Interrupted(BundlerError):
    """A signal ended the run. done: what was published before, if that is known."""

    title = "interrupted"

    def __init__(self, signal_number: int, done: str = "") -> None:
        import signal

        name = signal.Signals(signal_number).name
        what = f"; {done}" if done else ""
        super().__init__(f"Stopped by signal {signal_number} ({name}){what}.")
        self.exit_code = 128 + signal_number  # type: ignore[misc]  # a code for each signal


def signal_of(error: BaseException) -> int | None:
    """The signal that this exception ends the run for; None if it is another failure."""
    import signal

    if isinstance(error, KeyboardInterrupt):
        return signal.SIGINT
    terminated = isinstance(error, SystemExit) and error.code == _SIGNALS + signal.SIGTERM
    return signal.SIGTERM if terminated else None


class ChildFailed(BundlerError):
    """The user's build failed: its output is already shown, its exit code becomes ours."""

    title = "build failed"

    def __init__(self, tool: str, exit_code: int) -> None:
        super().__init__(f"{tool} failed with exit code {exit_code}; no artifact was built.")
        self.exit_code = exit_code  # type: ignore[misc]  # the child's code is passed through


class Several(BundlerError):
    """Several failures; the most serious one determines the exit code."""

    title = "several failures"

    def __init__(self, failures: Sequence[BundlerError]) -> None:
        super().__init__("; ".join(failure.what for failure in failures))
        self.failures = tuple(failures)
        self.exit_code = exit_code_of(failures)  # type: ignore[misc]  # determined by its parts


_SIGNALS = 128  # a shell reports death by signal N as 128 + N

# From the most to the least serious; signals (128 and above) precede all of them.
_PRECEDENCE = (70, 78, 77, 74, 71, 75, 69, 65, 76, 1)


def exit_code_of(failures: Iterable[BundlerError]) -> int:
    """The exit code for several failures."""
    codes = {failure.exit_code for failure in failures}
    signals = [code for code in codes if code >= _SIGNALS]
    if signals:
        return max(signals)
    return next((code for code in _PRECEDENCE if code in codes), max(codes, default=0))


def raise_all(failures: Sequence[BundlerError], conclusion: str = "", log: str = "") -> None:
    """Raises a single failure as it is, several as `Several`; do nothing if there are none."""
    if not failures:
        return
    error = failures[0] if len(failures) == 1 else Several(failures)
    if conclusion:
        error.conclusion, error.log = conclusion, log
    raise error
