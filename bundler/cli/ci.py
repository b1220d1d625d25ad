"""CI output: collapsible groups, annotations and a step summary.

GitHub: https://docs.github.com/actions/reference/workflow-commands-for-github-actions
GitLab: https://docs.gitlab.com/ci/jobs/job_logs/#custom-collapsible-sections
Azure:  https://learn.microsoft.com/azure/devops/pipelines/scripts/logging-commands

All of them read these commands from stdout and stderr.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Literal

from bundler.cli.console import Console, ConsoleListener, hidden, safe

if TYPE_CHECKING:
    from bundler.artifacts.verify import Verdict
    from bundler.errors import BundlerError

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

    def __init__(self, console: Console, system: System, *, quiet: bool = False) -> None:
        super().__init__(console, quiet=quiet)
        self._system = system
        self._section = 0
        self._open = False

    def phase(self, text: str) -> None:
        if self._quiet:
            return
        self.close()
        self._section += 1
        self._open = True
        self._console.command(self._begin(safe(text)))

    def warning(self, text: str) -> None:
        super().warning(text)
        if line := annotation(self._system, "warning", text):
            self._console.command(line)

    def close(self) -> None:
        """Ends the open group, so that the following lines are visible without expanding it."""
        if self._open:
            self._open = False
            self._console.command(self._end())

    def _begin(self, title: str) -> str:
        if self._system == "github":
            return f"::group::{_data(title)}"
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


def annotation(where: System | None, grade: Grade, text: str) -> str:
    """The command that annotates the run; empty if the CI system has none."""
    if where == "github":
        return f"::{grade} title={_TITLE}::{_data(safe(text))}"
    if where == "azure":
        flat = safe(text).replace("%", "%AZP25").replace("\r", "%0D").replace("\n", "%0A")
        return f"##vso[task.logissue type={grade}]{flat}"
    return ""


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


# --- the summary of a step --------------------------------------------------------------------


def summarise(lines: Iterable[str], environ: Mapping[str, str] = os.environ) -> None:
    """Appends Markdown to the step's summary, where the CI system shows one."""
    path = environ.get("GITHUB_STEP_SUMMARY")
    if path:
        # If that fails, the log still has everything.
        with suppress(OSError), open(path, "a", encoding="utf-8") as stream:
            stream.write("\n".join(lines) + "\n\n")


def verdict_summary(verdict: Verdict, name: str) -> list[str]:
    """An artifact and its states."""
    from bundler.cli.console import size

    lines = [f"### ✓ {_cell(name)}", ""]
    if verdict.digest:
        lines += [f"`{verdict.digest}`", ""]
    for directory in verdict.directories:
        if directory.manifest is None:
            continue
        digest = directory.manifest.content_digest
        rows = [(s.key, size(s.size), s.digest.dir_hash[:12]) for s in directory.manifest.states]
        lines += [f"{_cell(directory.path)}: content `{digest}`", ""]
        lines += [*table(("key", "size", "digest"), rows), ""]
    return lines


def failure_summary(failures: Sequence[BundlerError]) -> list[str]:
    """What went wrong, and the next step."""
    lines = [f"### ✗ {len(failures)} failed" if len(failures) > 1 else "### ✗ failed", ""]
    rows = [(f"{error.title} ({error.exit_code})", error.what, error.hint) for error in failures]
    return [*lines, *table(("", "what happened", "what to do"), rows)]


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
