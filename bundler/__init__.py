"""Bakes the state of external systems into the artifact that ships, and proves that it is there.

For programs there are five functions, each what the command of its name does::

    import bundler

    bundler.guard("shop")                       # raises Findings: state could come into git
    bundler.refresh("shop")                     # all states, or none and an error
    bundler.embed("app.pex", "shop")            # what was refreshed, into a finished artifact
    bundler.verify("app.pex", bundler.Policy(max_age=86400))
    for key in bundler.diff("app-1.pex", "app.pex").keys:
        print(key.key, key.kind, key.summary)

Nothing is printed; a `Listener` receives the progress. Every expected failure is a `BundlerError`
with a message (`what`), a next step (`hint`) and the command's `exit_code`. What is not named in
``__all__`` may change in any version.
"""

from __future__ import annotations

# Two packages have the names of two functions below. The import system binds a package's name here
# when it first loads it: these two are loaded first, so that the functions keep the names.
import bundler.guard
import bundler.refresh  # noqa: F401  # for its side effect, as above
from bundler.api import diff, embed, guard, refresh, verify
from bundler.version import __version__

# `typing` takes longer to import than git takes to answer `state-guard`.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from bundler.errors import BundlerError
    from bundler.listener import Listener
    from bundler.project.options import KeyOptions, RefreshOptions
    from bundler.workflows.policy import Policy

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


def __getattr__(name: str) -> object:
    if name in _CLASSES:
        from importlib import import_module

        return getattr(import_module(_CLASSES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
