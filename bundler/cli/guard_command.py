"""The command line of the guard, for ``state-guard`` and ``state-bundler guard``.

Importing click would delay every commit, so arguments are parsed by hand, and the code that prints
findings is imported on demand.
"""

from __future__ import annotations

import _thread
import os
import sys

from bundler.errors import Bug, BundlerError, Findings, UsageError
from bundler.guard.moments import check
from bundler.guard.verdict import GuardFinding, GuardVerdict, Moment, Movement, grouped, shared
from bundler.system import streams
from bundler.system.fast_tuple import NamedTuple
from bundler.system.wording import nearest
from bundler.version import __version__

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

    from bundler.cli.console import Console


_USAGE = """\
Usage: state-guard [--staged | --push | --receive | --history] [OPTION]... [DIR]...

Checks that no state is in the git repository or can get into it.
DIR names a state directory in addition to those found by name and configuration.
By default, checks the index, HEAD and the ignore rules.

{options}
  -h, --help       show this message and exit
  --version        show the version and exit

Exit codes: 0 clean, 1 findings, 2 usage error, 71 git failed.
"""
FORMATS = ("text", "json", "github", "sarif")
# By its name: what it takes, the field that it sets, and its help.
OPTIONS = {
    "--staged": ("", "moment", "check what the next commit will contain (pre-commit)"),
    "--push": ("", "moment", "check the commits being pushed (pre-push)"),
    "--receive": ("", "moment", "check the commits being received (pre-receive)"),
    "--history": ("", "moment", "check everything reachable from any ref"),
    "--allow": ("PATTERN", "allow", "a path that is committed on purpose (repeatable)"),
    "--strict": ("", "strict", "treat warnings as failures"),
    "--fix": ("", "fix", "remove state from the index, add the ignore rule, then check again"),
    "--format": ("FORMAT", "format", "text, json, github or sarif"),
    "--remote": ("NAME", "remote", "the remote being pushed to (pre-push's first argument)"),
    "-C": ("FOLDER", "root", "run as if started in FOLDER"),
}
_PATIENCE_SECONDS = 5.0
_SLOW = "still checking; this can take a while in a large repository."
_NO_INPUT = "waiting for git's input on stdin; outside of a git hook, add < /dev/null."


class GuardArguments(NamedTuple):
    moment: Moment = "build"
    directories: tuple[str, ...] = ()
    allow: tuple[str, ...] = ()
    strict: bool = False
    format: str = "text"
    root: str = "."
    fix: bool = False
    remote: str = ""
    compare: tuple[bytes, ...] | None = None


def run(arguments: Sequence[str], compare: tuple[bytes, ...] | None = None) -> int:
    """``state-guard``: prints the verdict, returns the exit code.

    compare: if the index is known to contain no state under its own name, the directories with
    state that could have been copied.
    """
    return streams.ending(lambda: _run(arguments, compare), _report)


def _run(arguments: Sequence[str], compare: tuple[bytes, ...] | None) -> int:
    try:
        if any(argument in ("-h", "--help") for argument in arguments):
            shown = (f"  {f'{name} {it[0]}':16} {it[2]}" for name, it in OPTIONS.items())
            sys.stdout.write(_USAGE.format(options="\n".join(shown)))
            return 0
        if "--version" in arguments:
            sys.stdout.write(f"state-guard, version {__version__}\n")
            return 0
        return answer(parse(arguments)._replace(compare=compare))
    except BundlerError as error:
        return _report(error)
    except KeyboardInterrupt:
        return 130
    except Exception as error:  # Python's own exit code for it, 1, would mean "findings"
        if streams.is_ours(error):
            raise
        import traceback

        say(traceback.format_exc())
        say("state-guard: this is a bug in state-bundler; please report it.")
        return Bug.exit_code


def _report(error: BundlerError) -> int:
    _console().failure(error)
    return error.exit_code


def parse(arguments: Sequence[str]) -> GuardArguments:
    """Reads the arguments. Raises `UsageError`."""
    given: dict[str, Any] = {"allow": [], "directories": []}
    words = iter(arguments)
    for word in words:
        name, equals, value = word.partition("=")
        takes, field, _ = OPTIONS.get(name, ("", "", ""))
        if word == "--":
            given["directories"] += words
        elif not word.startswith("-"):
            given["directories"].append(word)
        elif not field or (equals and not takes):
            raise _unknown(word)
        elif field == "moment" and field in given:
            raise UsageError("--staged, --push, --receive and --history are mutually exclusive.")
        elif takes:
            value = value if equals else _value(words, name)
            given[field] = [*given["allow"], value] if field == "allow" else value
        else:
            given[field] = name[2:] if field == "moment" else True
    if given.get("format", "text") not in FORMATS:
        known = ", ".join(FORMATS)
        raise UsageError(f"Unknown format {given['format']!r}: choose from {known}.")
    given |= {name: tuple(given[name]) for name in ("allow", "directories")}
    return GuardArguments(**given)


def _unknown(word: str) -> UsageError:
    near = nearest(word.partition("=")[0], (*OPTIONS, "--help", "--version"))
    suggestion = f" Did you mean {near}?" if near else ""
    return UsageError(f"Unknown option {word}.{suggestion}", hint="See state-guard --help.")


def _value(words: Iterator[str], name: str) -> str:
    value = next(words, None)
    if value is None:
        raise UsageError(f"{name} requires a value.", hint="See state-guard --help.")
    return value


def answer(request: GuardArguments) -> int:
    """Checks, prints the verdict and returns the exit code. Raises what `check` raises."""
    movement = _moved(request)

    def ask() -> GuardVerdict:
        return check(
            request.root,
            request.moment,
            request.directories,
            request.allow,
            strict=request.strict,
            movement=movement,
        )

    with _Patience(_SLOW):
        verdict = ask()
    if request.fix and verdict.findings:
        from bundler.guard.fix import fix

        for done in fix(request.root, verdict, request.directories):
            say(f"fixed: {done}")
        verdict = ask()
    report(verdict, request.format)
    return 1 if verdict.failed else 0


class _Patience:
    """Prints a notice if something takes several seconds. `threading` is slow to import."""

    def __init__(self, notice: str) -> None:
        self._notice = notice

    def __enter__(self) -> None:
        self._done = _thread.allocate_lock()
        self._done.acquire()
        _thread.start_new_thread(self._wait, ())

    def __exit__(self, *_: object) -> None:
        self._done.release()

    def _wait(self) -> None:
        if not self._done.acquire(timeout=_PATIENCE_SECONDS):
            say(f"guard: {self._notice}")


def _moved(request: GuardArguments) -> Movement:
    """What is pushed or received, from git's hook input or from the pre-commit framework.

    Raises `ToolFailed` if the standard input is not a hook's input.
    """
    names = ("FROM_REF", "TO_REF", "LOCAL_BRANCH", "REMOTE_NAME")
    old, new, branch, remote = (os.environ.get(f"PRE_COMMIT_{name}", "") for name in names)
    movement = Movement(remote=request.remote or remote, compare=request.compare)
    if request.moment == "push":  # the framework names no commits for the first push of a branch
        new = new or branch
    if request.moment in ("staged", "push") and new:
        return movement._replace(updates=((old or "0", new),))
    if request.moment not in ("push", "receive") or sys.stdin is None or sys.stdin.isatty():
        return movement
    from bundler.guard.commits import pushed, received

    with _Patience(_NO_INPUT):
        text = sys.stdin.buffer.read()
    if not text:  # not called by git, or by a framework that does not pass the input on
        return movement
    read = pushed if request.moment == "push" else received
    return movement._replace(updates=read(text))


def report(verdict: GuardVerdict, form: str = "text") -> None:
    """Prints a verdict: text to stderr, other formats to stdout."""
    if form != "text":
        from bundler.cli.guard_formats import formatted

        sys.stdout.write(formatted(verdict, form))
    elif verdict.findings:
        _show(verdict.findings)
    elif verdict.moment in ("build", "history"):
        say(_clean(verdict))


def say(line: str) -> None:
    """Prints a line on stderr; paths in it may contain any bytes."""
    sys.stderr.buffer.write(line.encode("utf-8", "surrogateescape") + b"\n")
    sys.stderr.buffer.flush()


def _console() -> Console:
    from bundler.cli.console import Console

    return Console(sys.stderr)


def _show(findings: Sequence[GuardFinding]) -> None:
    """Prints the findings; consecutive ones with the same reason and fix show these once."""
    console = _console()
    told = grouped(findings)
    for finding, following in zip(told, [*told[1:], None], strict=True):
        is_last = following is None or shared(finding) != shared(following)
        why, fix = (finding.why, finding.fix) if is_last else ("", "")
        if finding.grade == "warn":
            console.warning(finding.what, why, fix)
        else:
            console.failure(Findings(finding.what, hint=fix, why=why))
    failures = sum(finding.grade == "fail" for finding in findings)
    if failures > 1:
        console.line(f"{failures} findings; exit code {Findings.exit_code}.")


def _clean(verdict: GuardVerdict) -> str:
    count = len(verdict.directories)
    if verdict.moment == "history":
        return "guard: no state is reachable from any ref."
    if not count:
        return "guard: no state directory, and no state in the index or in HEAD."
    noun = "state directory is" if count == 1 else "state directories are"
    return f"guard: {count} {noun} ignored by git."
