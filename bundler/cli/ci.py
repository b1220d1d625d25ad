"""CI output: collapsible groups, annotations and a step summary.

GitHub: https://docs.github.com/actions/reference/workflow-commands-for-github-actions
GitLab: https://docs.gitlab.com/ci/jobs/job_logs/#custom-collapsible-sections
Azure:  https://learn.microsoft.com/azure/devops/pipelines/scripts/logging-commands

All of them read these commands from stdout and stderr.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Literal

from bundler import listener
from bundler.cli.console import Console, age, hidden, safe, short, size
from bundler.cli.findings import escaped, escaped_property
from bundler.cli.help import message_as_typed
from bundler.cli.progress import ConsoleListener

if TYPE_CHECKING:
    from bundler.artifacts.verify import Verdict
    from bundler.errors import BundlerError
    from bundler.listener import KeyProgress

System = Literal["github", "gitlab", "azure"]
Grade = Literal["error", "warning", "notice"]

_TITLE = "state-bundler"
_SECTION = "state_bundler"
# GitHub rejects larger summaries entirely.
_MOST_ROWS = 500


def system(environ: Mapping[str, str] = os.environ) -> System | None:
    """The CI system we run on; None if it is not a known one."""
    if environ.get("GITHUB_ACTIONS") == "true":
        return "github"
    if environ.get("GITLAB_CI") == "true":
        return "gitlab"
    if environ.get("TF_BUILD", "").lower() == "true":
        return "azure"
    return None


class CiListener(ConsoleListener):
    """A `ConsoleListener` that prints phases as collapsible groups and warnings as annotations."""

    def __init__(
        self, console: Console, system: System, *, quiet: bool = False, verbose: bool = False
    ) -> None:
        super().__init__(console, quiet=quiet, verbose=verbose)
        self._system = system
        self._section = 0
        self._open = False

    def phase(self, text: str) -> None:
        if self._quiet:
            return
        self._fold()
        self._section += 1
        self._open = True
        self._console.command(self._begin(safe(text)))
        self.working(text)

    def warning(self, text: str) -> None:
        super().warning(text)
        if line := annotation(self._system, "warning", message_as_typed(text)):
            self._console.command(line)

    def close(self) -> None:
        super().close()
        self._fold()

    def _fold(self) -> None:
        """Ends the open group, so that the following lines are visible without expanding it."""
        if self._open:
            self._open = False
            self._console.command(self._end())

    def _begin(self, title: str) -> str:
        if self._system == "github":
            return f"::group::{escaped(title)}"
        if self._system == "azure":
            return f"##[group]{title}"
        name = f"{_SECTION}_{self._section}"
        return f"\x1b[0Ksection_start:{time.time():.0f}:{name}\r\x1b[0K{title}"

    def _end(self) -> str:
        if self._system == "github":
            return "::endgroup::"
        if self._system == "azure":
            return "##[endgroup]"
        return f"\x1b[0Ksection_end:{time.time():.0f}:{_SECTION}_{self._section}\r\x1b[0K"


def annotation(where: System | None, grade: Grade, text: str, at: str = "") -> str:
    """The command that annotates the run; empty if the CI system has none. at: ``file:line``."""
    file, line = _place(at) if at else ("", "")
    if where == "github":
        place = f"file={escaped_property(safe(file))}," if file else ""
        place += f"line={line}," if line else ""
        return f"::{grade} {place}title={_TITLE}::{escaped(safe(text))}"
    if where == "azure":
        path = _azure(file).replace(";", "%3B").replace("]", "%5D")
        place = f";sourcepath={path}" if file else ""
        place += f";linenumber={line}" if line else ""
        return f"##vso[task.logissue type={grade}{place}]{_azure(text)}"
    return ""


def _azure(text: str) -> str:
    return safe(text).replace("%", "%AZP25").replace("\r", "%0D").replace("\n", "%0A")


def annotate(where: System | None, error: BundlerError) -> Iterator[str]:
    """A command for each finding of a failure, at the file and line that it names."""
    for text in _findings(error):
        if line := annotation(where, "error", text, error.where):
            yield line


def _place(at: str) -> tuple[str, str]:
    """The file, relative to the repository's top, and the line; a relative path is unchanged."""
    file, _, line = at.rpartition(":")
    if not line.isdecimal():
        file, line = at, ""
    top = os.environ.get("GITHUB_WORKSPACE") or os.environ.get("BUILD_SOURCESDIRECTORY")
    path = os.path.relpath(file, top) if top else file
    return (file if path.startswith(os.pardir) else path), line


# --- the summary of a step --------------------------------------------------------------------


def summarise(lines: Iterable[str]) -> None:
    """Appends Markdown to the step's summary, where the CI system shows one."""
    path, text = os.environ.get("GITHUB_STEP_SUMMARY"), "\n".join(lines)
    if path and text:
        # If that fails, the log still has everything.
        with suppress(OSError), open(path, "a", encoding="utf-8") as stream:
            stream.write(f"{text}\n\n")


def verdict_summary(verdict: Verdict, name: str) -> list[str]:
    lines = [f"### ✓ {_cell(name)}", ""]
    if verdict.digest:
        lines += [f"`{verdict.digest}`", ""]
    for directory in verdict.directories:
        if directory.manifest is None:
            continue
        digest = directory.manifest.content_digest
        record, path = verdict.record, directory.path
        rows = [
            (
                it.key,
                size(it.size),
                short(it.digest.dir_hash),
                age(known.confirmed or known.fetched)
                if record and (known := record.key(path, it.key))
                else "-",
            )
            for it in directory.manifest.states
        ]
        lines += [f"{_cell(directory.path)}: content `{digest}`", ""]
        lines += [*table(("key", "size", "digest", "age"), rows), ""]
    if verdict.proof:
        lines += [verdict.proof, ""]
    return [*lines, *keys_summary(finished())]


def failure_summary(failures: Sequence[BundlerError]) -> list[str]:
    lines = [f"### ✗ {len(failures)} failed" if len(failures) > 1 else "### ✗ failed", ""]
    rows: list[tuple[str, str, str]] = []
    for error in failures:
        title = f"{error.title} ({error.exit_code})"
        place = f" ({error.where})" if error.where else ""
        texts = [f"{text}{place}" for text in _findings(error)]
        rows += zip([title] * len(texts), texts, [error.hint] + [""] * len(texts), strict=False)
    return [*lines, *table(("", "what happened", "what to do"), rows)]


def _findings(error: BundlerError) -> list[str]:
    return [f"{rule}: {line}" for rule, lines in error.details for line in lines] or [error.what]


def finished() -> Mapping[str, KeyProgress]:
    """The result of each key that this process has refreshed."""
    reports = listener.of_process
    return reports.finished if isinstance(reports, ConsoleListener) else {}


def keys_summary(ended: Mapping[str, KeyProgress]) -> list[str]:
    if not ended:
        return []
    rows = [
        (it.key, it.phase, it.detail or "-", size(it.size), f"{it.seconds:.1f} s", str(it.attempt))
        for it in ended.values()
    ]
    return ["", *table(("key", "result", "change", "size", "time", "attempts"), rows)]


def table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A table in Markdown."""
    lines = [f"| {' | '.join(headers)} |", "|" + "---|" * len(headers)]
    lines += [f"| {' | '.join(map(_cell, row))} |" for row in rows[:_MOST_ROWS]]
    if len(rows) > _MOST_ROWS:
        lines.append(f"| and {len(rows) - _MOST_ROWS} more |" + " |" * (len(headers) - 1))
    return lines


def _cell(text: str) -> str:
    """Untrusted text, escaped so that it contains no markup and cannot end the cell."""
    escaped = hidden(safe(text)).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    for character in "\\`*_[]|":
        escaped = escaped.replace(character, f"\\{character}")
    return escaped.replace("\n", " ")
