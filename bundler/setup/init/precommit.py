"""The entry in ``.pre-commit-config.yaml``.

pre-commit installs the same copy that is installed here. If others cannot get that copy, or pip has
no option for its index, the hook calls the ``state-guard`` on PATH.
"""

from __future__ import annotations

import itertools
import json
import re

from bundler.setup.init.pre_commit_config import hook_ids, load, with_item
from bundler.system.installed import installed
from bundler.system.packaged_files import template

HOOK = "no-committed-state"
# The command to run once per clone.
INSTALL = "pre-commit install -t pre-commit -t pre-merge-commit"
_INSTALLED = re.compile(r"(?m)^ *additional_dependencies:.*\n")


def add_entry(text: str | None) -> str:
    """With our entry at the end of ``repos``. Raises `ConfigurationError` if that is not safe."""
    if text is not None and names_hook(text):
        return text
    return with_item(text or "", entry("", _requirement()).splitlines())


def names_hook(text: str) -> bool:
    """Whether a configuration contains our hook. Raises `ConfigurationError` if it cannot be
    read."""
    return HOOK in hook_ids(load(text))


def remove_entry(text: str | None) -> str | None:
    """Without our entry; None if nothing else was in the file."""
    if text is None:
        return None
    requirements = (installed().requirement(), None)
    for indent, requirement in itertools.product(("  ", "", "    "), requirements):
        ours = entry(indent, requirement)
        for written in (ours, ours.replace("\n", "\r\n")):
            if written in text:
                rest = text.replace(written, "", 1)
                return None if rest.strip() == "repos:" else rest
    return text


def entry(indent: str, requirement: str | None) -> str:
    """The entry, as an item of ``repos`` that is indented like its neighbours.

    requirement: what pre-commit installs; None if the hook calls the program on PATH.
    """
    stored = template("pre-commit.yaml").read_text(encoding="utf-8")
    if requirement is None:
        stored = _INSTALLED.sub("", stored).replace("language: python", "language: system")
    else:
        stored = stored.replace("{requirement}", json.dumps(requirement)[1:-1])
    return "".join(f"{indent}{line}\n" for line in stored.splitlines())


def _requirement() -> str | None:
    """None if pre-commit cannot install this copy; pip has no option for one package's index."""
    found = installed()
    return found.requirement() if found.is_portable and not found.index else None
