"""The resulting artifact, as text or JSON, and as outputs for later steps of a CI job."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from bundler.cli.console import Console, safe, short, size
from bundler.cli.help import message_as_typed
from bundler.errors import Interrupted, raise_all, signal_of
from bundler.system.wording import counted

if TYPE_CHECKING:
    from bundler.artifacts.embedding import EmbedResult
    from bundler.artifacts.verify import Verdict
    from bundler.cli import documents
    from bundler.errors import BundlerError
    from bundler.state.manifest import Manifest
    from bundler.workflows.update import UpdateOutcome


def show_updates(updates: Iterable[UpdateOutcome], count: int, style: str) -> None:
    """Collects the outcomes of artifacts, shows them like `show_outcome`, then raises the failures.

    count: of the artifacts that were given. After a signal or a bug, the outcomes so far are shown.
    """
    outcomes: list[UpdateOutcome] = []
    try:
        outcomes.extend(updates)  # what came before an error stays
    except BaseException as error:
        _show_outcomes(outcomes, count, style)
        for outcome in outcomes:
            if outcome.failure is not None:
                Console(sys.stderr).failure(outcome.failure)
        number = signal_of(error)
        if number is None or count == 1:
            raise
        changed = sum(outcome.made is not None and outcome.made.changed for outcome in outcomes)
        raise Interrupted(number, f"{changed} of {count} artifacts updated") from error
    _show_outcomes(outcomes, count, style)
    raise_failures([(outcome.artifact, outcome.failure) for outcome in outcomes])


def raise_failures(named: Sequence[tuple[str, BundlerError | None]]) -> None:
    """Raises the failures; of several artifacts, each failure names its own."""
    from bundler.artifacts.reference import PREFIX

    for name, error in named:
        if error is not None and len(named) > 1 and name.removeprefix(PREFIX) not in error.what:
            error.what = f"{name}: {error.what}"
    raise_all([error for _, error in named if error is not None])


def _show_outcomes(outcomes: Sequence[UpdateOutcome], count: int, style: str) -> None:
    made = [outcome.made for outcome in outcomes if outcome.made is not None]
    if count > 1:
        names = json.dumps([each.name for each in made])
        tell_github({"changed": any(each.changed for each in made), "images": names})
        if style == "json":
            from bundler.cli.documents import Updates, print_document

            print_document(Updates, artifacts=[_updated(outcome) for outcome in outcomes])
        else:
            show_verdicts([(each.verdict, each.name) for each in made])
    elif made:
        show_outcome(made[0], style)


def _updated(outcome: UpdateOutcome) -> documents.UpdatedArtifact:
    from bundler.cli import documents

    made = {"changed": False} if outcome.made is None else _outputs(outcome.made)
    return documents.UpdatedArtifact.of(outcome, error=outcome.failure, **made)


def show_outcome(made: EmbedResult, style: str) -> None:
    """Prints to stdout and to the file named by ``GITHUB_OUTPUT``."""
    tell_github(_outputs(made))
    if style == "json":
        from bundler.cli.documents import Embed, print_document

        print_document(Embed, **_outputs(made))
    else:
        show_verdict(made.verdict, made.name)


def _outputs(made: EmbedResult) -> dict[str, Any]:
    return {"changed": made.changed, "image": made.name, "digest": made.digest}


def tell_github(outputs: dict[str, Any]) -> None:
    """Hands values to later steps of a GitHub job."""
    path = os.environ.get("GITHUB_OUTPUT")
    if path:
        with open(path, "a", encoding="utf-8") as stream:
            for name, value in outputs.items():
                text = str(value).lower() if isinstance(value, bool) else value or ""
                stream.write(f"{name}={text}\n")


def show_verdict(verdict: Verdict, name: str | None = None, style: str = "text") -> None:
    """Prints what an artifact contains, also to the summary of a CI step."""
    show_verdicts([(verdict, name or verdict.name)], style)


def show_verdicts(named: Sequence[tuple[Verdict, str]], style: str = "text") -> None:
    """The same for several artifacts."""
    for verdict, name in named:
        _summarise(verdict, name)
        if style != "json":
            _as_text(verdict, name)
    if style == "json":
        from bundler.cli.documents import BuildDocument, print_document

        print_document(BuildDocument, artifacts=[_document(*it) for it in named])


def _summarise(verdict: Verdict, name: str) -> None:
    """For a CI step, and for the process that builds all projects."""
    from bundler.cli.ci import summarise, verdict_summary

    summarise(verdict_summary(verdict, name))
    if os.environ.get("STATE_BUNDLER_ONE_OF_ALL"):
        from bundler.workflows.build_all import BuildResult, report_result

        layout = name.removeprefix("oci:")  # relative to the project: that process is elsewhere
        if layout != name:
            name = f"oci:{os.path.abspath(layout)}"
        state = "" if verdict.directories else " (no state)"
        report_result(BuildResult(f"{name}{_digest(verdict)}{state}"))


def _digest(verdict: Verdict) -> str:
    return f" {verdict.digest}" if verdict.digest else ""


def _as_text(verdict: Verdict, name: str) -> None:
    console = Console(sys.stdout)
    console.line(f"{console.tick()} {name}{_digest(verdict)}")
    for directory in verdict.directories:
        if directory.manifest is not None:
            console.line(f"  {directory.path}: {content(directory.manifest)}")
    if verdict.proof:
        console.line(f"  {verdict.proof}")
    if verdict.loaded:
        console.line(f"  {safe(message_as_typed(verdict.loaded))}")


def content(manifest: Manifest) -> str:
    """What a state directory contains, in a line."""
    count = counted(len(manifest.states), "state")
    return f"{count}, {size(manifest.size)}, content {short(manifest.content_digest)}"


def _document(verdict: Verdict, name: str) -> documents.Built:
    from bundler.cli import documents

    return documents.Built.of(
        verdict,
        artifact=name,
        loaded=verdict.loaded or None,
        directories=[
            documents.shipped(it.path, it.manifest)
            for it in verdict.directories
            if it.manifest is not None
        ],
    )
