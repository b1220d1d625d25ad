"""Bakes the state of external systems into the artifact that ships, and proves that it is there.

For programs there are five functions, each what the command of its name does::

    import bundler

    bundler.guard("shop")                       # raises Findings: state could come into git
    bundler.refresh("shop")                     # all states, or none and an error
    bundler.embed("app.pex", "shop")            # what was refreshed, into a finished artifact
    bundler.verify("app.pex", bundler.Policy(max_age=86400))
    for key in bundler.diff("app-1.pex", "app.pex").keys:
        print(key.key, key.kind, key.summary)

Nothing is printed; a `Listener` is told what happens. Every expected failure is a `BundlerError`
with a sentence (`what`), a next step (`hint`) and the command's `exit_code`. What is not named in
``__all__`` may change in any version.
"""

from __future__ import annotations

import sys

# `typing` takes longer to import than git takes to answer `state-guard`.
TYPE_CHECKING = False
if TYPE_CHECKING:
    import os
    from collections.abc import Sequence
    from pathlib import Path

    from bundler.artifacts.verify import Verdict
    from bundler.errors import BundlerError as BundlerError
    from bundler.guard.verdict import Moment
    from bundler.guard.verdict import Verdict as GuardVerdict
    from bundler.listener import Listener as Listener
    from bundler.project.options import KeyOptions as KeyOptions
    from bundler.project.options import RefreshOptions as RefreshOptions
    from bundler.project.projects import Project
    from bundler.refresh.run import Refreshed
    from bundler.state.artifact import Artifact
    from bundler.workflows.diff import Difference
    from bundler.workflows.policy import Policy as Policy
    from bundler.workflows.update import Updated

    Directory = str | os.PathLike[str]

__version__ = "0.1.0"
__all__ = [
    "BundlerError",
    "KeyOptions",
    "Listener",
    "Policy",
    "RefreshOptions",
    "__version__",
    "diff",
    "embed",
    "guard",
    "refresh",
    "verify",
]

_CLASSES = {
    "BundlerError": "bundler.errors",
    "KeyOptions": "bundler.project.options",
    "Listener": "bundler.listener",
    "Policy": "bundler.workflows.policy",
    "RefreshOptions": "bundler.project.options",
}


def refresh(
    *projects: Directory,
    options: RefreshOptions | None = None,
    python: Directory | None = None,
    listener: Listener | None = None,
) -> Refreshed:
    """Refreshes and publishes the states of projects: all of them, or none.

    projects: their directories; none means the one that you are in. options: go before the
    projects' own configuration. python: their interpreter; None finds it as dg and uv do.
    Raises the failure of a key (`errors.Unavailable`, `errors.BadData`,
    `errors.CredentialsRefused`, …), or `errors.Several`; what was there before is then as it was.
    """
    from bundler.listener import SILENT
    from bundler.project.options import RefreshOptions
    from bundler.refresh.run import refresh

    return refresh(_found(projects, python), options or RefreshOptions(), listener or SILENT)


def guard(
    directory: Directory = ".",
    moment: Moment = "build",
    *,
    allow: Sequence[str] = (),
    strict: bool = False,
) -> GuardVerdict:
    """Asks git whether state is, or could come, into the repository that `directory` lies in.

    moment: ``build`` (index, HEAD and ignore rules), ``staged`` or ``history``. allow: paths or
    patterns that are committed on purpose, besides those that the project's configuration allows.
    strict: warnings fail, too. Returns the verdict with its warnings.
    Raises `errors.Findings` where it fails, `errors.ToolFailed` where git cannot answer.
    """
    from pathlib import Path

    from bundler.errors import Findings
    from bundler.guard import check
    from bundler.project.config import load

    root = Path(directory)
    config = load(root)
    places = [root / source.path for source in config.sources]
    verdict = check(root, moment, places, (*config.guard_allow, *allow), strict=strict)
    if verdict.failed:
        sentences = " ".join(finding.what for finding in verdict.failures)
        raise Findings(sentences, hint=verdict.failures[0].mend)
    return verdict


def embed(
    artifact: str,
    *projects: Directory,
    options: RefreshOptions | None = None,
    state_from: str | None = None,
    guarded: bool = True,
    tag: str | None = None,
    in_place: bool = False,
    python: Directory | None = None,
    listener: Listener | None = None,
) -> Updated:
    """Puts state into a finished artifact, reads it back, and only then gives it its name.

    artifact: a PEX, which is replaced; ``oci:LAYOUT[:TAG]`` or an image in the engine or, as
    ``docker://NAME``, in a registry, which get a new tag: `tag`, or one made of the old one and the
    content, or with `in_place` the old one.
    options: None takes the states that were published last; ``RefreshOptions(mode="always")`` asks
    the external systems first. state_from: an artifact whose states are taken instead.
    guarded: False does not ask git, which the artifact's record then says.
    Where the artifact holds these states already nothing is made, and `changed` is False.
    Raises `errors.VerificationFailed` where what was made does not hold them, and as `refresh` and
    `guard` do.
    """
    from bundler.listener import SILENT
    from bundler.project.options import RefreshOptions
    from bundler.workflows.pipeline import prepare
    from bundler.workflows.update import update

    listener = listener or SILENT
    prepared = prepare(
        _found(projects, python),
        options or RefreshOptions(mode="never"),
        guarded=guarded,
        state_from=state_from,
        listener=listener,
    )
    return update(artifact, tag, in_place=in_place, prepared=prepared, listener=listener)


def verify(artifact: str, policy: Policy | None = None) -> Verdict:
    """Reads every byte of the state in an artifact and holds it against its manifest.

    Raises `errors.VerificationFailed` where it is not what the manifest says, or anything more,
    and `errors.Findings` where it is intact but not as the policy demands.
    """
    from bundler.artifacts.open import open_artifact
    from bundler.artifacts.verify import verify

    with open_artifact(artifact) as opened:
        verdict = verify(opened)
        verdict.raise_for_problems()
        if policy is not None:
            _demand(policy, opened, verdict)
    return verdict


def _demand(policy: Policy, artifact: Artifact, verdict: Verdict) -> None:
    import time

    from bundler.errors import Findings
    from bundler.workflows.policy import judge, subject_of

    breaches = judge(policy, subject_of(policy, artifact, verdict, time.time()))
    if breaches:
        sentences = " ".join(breach.what for breach in breaches)
        raise Findings(f"{verdict.name} is intact, but not as is demanded: {sentences}")


def diff(before: str, after: str, volatile: Sequence[str] = ()) -> Difference:
    """What changed from the states of one artifact or directory to those of another, key by key.

    volatile: names of JSON members that mean nothing, besides those that are known.
    Raises `errors.VerificationFailed` where one of them is malformed.
    """
    from bundler.artifacts.open import open_artifact
    from bundler.workflows.diff import diff

    with open_artifact(before) as one, open_artifact(after) as other:
        return diff(one, other, volatile)


def _found(directories: Sequence[Directory], python: Directory | None) -> tuple[Project, ...]:
    from pathlib import Path

    from bundler.project.projects import find

    interpreter: Path | None = None if python is None else Path(python)
    return find([Path(directory) for directory in directories], python=interpreter)


def __getattr__(name: str) -> object:
    if name in _CLASSES:
        from importlib import import_module

        return getattr(import_module(_CLASSES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


class _Package(type(sys)):  # type: ignore[misc]  # types.ModuleType, without an import of types
    """Keeps the functions above under their names, whatever is imported.

    The import system writes each module that it loads into its package, so ``bundler.refresh``
    would be a function until something imports the package of that name, and a module from then
    on. With ``from bundler.refresh import …`` such modules are reached as ever.
    """

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in __all__ and isinstance(value, type(sys))):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
