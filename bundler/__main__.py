"""``python -m bundler``: the same as ``state-bundler``."""

from bundler.cli import main

main()
