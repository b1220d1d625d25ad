"""The first and the last thing that each of our programs does.

First: the standard streams are open, and the umask leaves us our own permissions. Last: an input or
output error that no code expected ends with exit code 74, a closed pipe as it ends every Unix
program; neither is a bug of ours, nor exit code 1, which would mean findings.
"""

from __future__ import annotations

import io
import os
import sys

from bundler.errors import BundlerError, ToolFailed, io_failure

# Not from `typing`: the guard runs at every commit.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TextIO

    from _typeshed import ReadableBuffer

_BROKEN_PIPE = 128 + 13  # a shell's exit code for a program that SIGPIPE ended
_OWNER = 0o700
_OTHERS_WRITE = 0o002
_USUAL_UMASK = 0o022


class StreamFailed(SystemExit):
    """A standard stream that fails. No ``except Exception`` catches it, as with a signal.

    failure: what to report; None for a closed pipe, since nobody reads any more.
    """

    def __init__(self, failure: BundlerError | None) -> None:
        super().__init__(_BROKEN_PIPE if failure is None else failure.exit_code)
        self.failure = failure


def ending(work: Callable[[], int], report: Callable[[BundlerError], int]) -> int:
    """Runs a program to its exit code. report: shows an error to the user, and returns its exit
    code."""
    _open_standard_streams()
    _settle_umask()
    try:
        try:
            code = work()
            sys.stdout.flush()
        except BrokenPipeError:
            return report(ToolFailed("A program or server stopped reading its input."))
        except OSError as error:
            return report(io_failure(error))
    except StreamFailed as error:
        if error.failure is not None:
            from contextlib import suppress  # takes longer to import than git to answer the guard

            with suppress(StreamFailed):  # the other stream, too
                report(error.failure)
        return _BROKEN_PIPE if error.failure is None else error.failure.exit_code
    return code


def is_ours(error: Exception) -> bool:
    """Whether an error concerns a file, a stream or a pipe, and not a client library.

    Libraries' errors are subclasses of `OSError` or have no number; network errors are for the code
    that uses the network.
    """
    import shutil

    if not isinstance(error, OSError) or isinstance(error, TimeoutError):
        return False
    if isinstance(error, ConnectionError):
        return isinstance(error, BrokenPipeError)
    of_files = type(error).__module__ == "builtins" and error.errno is not None
    return of_files or isinstance(error, shutil.Error)


def _settle_umask() -> None:
    """Sets a umask that lets us use what we create, and nobody else change it."""
    mask = os.umask(_USUAL_UMASK) & ~_OWNER
    if not mask & _OTHERS_WRITE:
        mask |= _USUAL_UMASK
    os.umask(mask)


def _open_standard_streams() -> None:
    """Opens what was closed (``>&-``), so that no file of ours gets its descriptor.

    Closed output remains an error as soon as there is something to print, as everywhere: its
    descriptor is open for reading only. With closed errors, nobody wants the messages.
    """
    if sys.stdin is None:
        sys.stdin = io.TextIOWrapper(io.BufferedReader(io.FileIO(_null(os.O_RDONLY))))
    sys.stdout = _named(sys.stdout, os.O_RDONLY, "standard output")
    sys.stderr = _named(sys.stderr, os.O_WRONLY, "standard error")


def _null(flags: int) -> int:
    descriptor = os.open(os.devnull, flags)
    os.set_inheritable(descriptor, True)
    return descriptor


def _named(stream: TextIO | None, flags: int, name: str) -> TextIO:
    """The stream, with errors that name it; a stream that a caller has substituted stays."""
    if stream is None:
        raw = _Standard(_null(flags), name)
        return io.TextIOWrapper(io.BufferedWriter(raw), errors="backslashreplace")
    if not isinstance(stream, io.TextIOWrapper) or stream not in (sys.__stdout__, sys.__stderr__):
        return stream
    stream.flush()
    return io.TextIOWrapper(
        io.BufferedWriter(_Standard(stream.fileno(), name)),
        encoding=stream.encoding,
        errors=stream.errors,
        newline="\n",
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


class _Standard(io.FileIO):
    """A standard stream whose errors name it."""

    def __init__(self, descriptor: int, name: str) -> None:
        super().__init__(descriptor, "w", closefd=False)
        self._called = name

    def write(self, data: ReadableBuffer, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            # What is still buffered would fail again when Python ends, with Python's own exit code.
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.fileno())
            closed = isinstance(error, BrokenPipeError)
            raise StreamFailed(None if closed else io_failure(error, self._called)) from None
