"""Verifies artifacts, and judges those that are intact by a policy and their signature."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from bundler.artifacts.open import is_in_registry, open_artifact, shared_connections
from bundler.artifacts.verify import Verdict
from bundler.artifacts.verify import verify as read_and_compare
from bundler.errors import BundlerError, Findings
from bundler.listener import Listener
from bundler.system.parallel import while_waiting
from bundler.system.wording import counted
from bundler.workflows.policy import RULES, Breach, Policy
from bundler.workflows.signature import judged


class VerifyReport(msgspec.Struct, frozen=True):
    """The findings for one artifact.

    name: as the user gave it. verdict: None if it could not be read, for the reason in error.
    signer: who signed it, if that was checked.
    """

    name: str
    verdict: Verdict | None = None
    breaches: tuple[Breach, ...] = ()
    signer: str | None = None
    error: BundlerError | None = None

    def failure(self) -> BundlerError | None:
        """One error for everything that is wrong with the artifact."""
        if self.error is not None:
            return self.error
        if not self.breaches:
            return None
        hints = dict.fromkeys(it.hint or RULES[it.rule][1] for it in self.breaches)
        lines: dict[str, tuple[str, ...]] = {}
        for breach in self.breaches:
            lines[breach.rule] = (*lines.get(breach.rule, ()), breach.what)
        policy = f"{self.name} is intact, but violates the policy:"
        error = Findings(
            f"{policy} {' '.join(breach.what for breach in self.breaches)}", hint="\n".join(hints)
        )
        if len(self.breaches) > 1:
            error.headline = f"{policy} {counted(len(self.breaches), 'finding')}."
            error.details = tuple(lines.items())
        return error

    def findings(self) -> Iterator[tuple[str, str]]:
        """Every violated rule with its message."""
        problems = self.verdict.all_problems if self.verdict else ()
        if self.error is not None and not problems:
            problems = (self.error.what,)
        yield from (("integrity", problem) for problem in problems)
        yield from ((breach.rule, breach.what) for breach in self.breaches)


def verify(
    names: Sequence[str],
    policy: Policy,
    listener: Listener,
    *,
    signed_by: Path | None = None,
    signature: Path | None = None,
) -> list[VerifyReport]:
    """Verifies each artifact; several in registries concurrently.

    signed_by: a file of allowed signers. signature: of the only artifact, if it is not in the
    default place.
    """
    listener.working(
        f"Verifying {names[0] if len(names) == 1 else counted(len(names), 'artifact')}"
    )
    with shared_connections(names) as connections:

        def report(name: str) -> VerifyReport:
            verdict = None
            try:
                with open_artifact(name, connections) as artifact:
                    verdict = read_and_compare(artifact)
                    verdict.raise_for_problems()
                    breaches, signer = judged(
                        artifact, verdict, policy, allowed=signed_by, signature=signature, name=name
                    )
            except BundlerError as error:
                return VerifyReport(name, verdict, error=error)
            return VerifyReport(name, verdict, breaches, signer)

        reports = list(while_waiting(report, names, is_in_registry))
    listener.working("")
    return reports


def local_keys(directories: Sequence[Path], listener: Listener) -> list[str]:
    """The keys of these projects' components whose states belong in an artifact."""
    from bundler.project.projects import find
    from bundler.refresh.run import discover

    found = discover(find(directories), listener)
    return sorted({key for source in found for key in source.keys("LOCAL_FILESYSTEM")})
