"""The pex wrapper: ``pex-bundle`` takes pex's own arguments; ours begin with ``--bundle-``."""

from __future__ import annotations

import sys


def main() -> None:
    """The console script."""
    from bundler.cli import pex_bundle

    sys.exit(pex_bundle.main(sys.argv[1:]))
