"""The entry in ``.pre-commit-config.yaml``.

It names the version that pre-commit installs; where we were installed from a folder, which no
package index has, it calls the ``state-guard`` that is on PATH.
"""

from __future__ import annotations

import itertools
import json
import re
from importlib.metadata import PackageNotFoundError, distribution

from bundler.setup.init.pre_commit_config import hook_ids, load, with_item, without_item
from bundler.system.packaged_files import template
from bundler.version import __version__

HOOK = "no-committed-state"
# What a user runs once in each clone.
INSTALL = "pre-commit install -t pre-commit -t pre-merge-commit"
_INSTALLED = re.compile(r"(?m)^ *additional_dependencies:.*\n")


def add_entry(text: str | None) -> str:
    """With our entry at the end of ``repos``. Raises `ConfigurationError` if that is not safe."""
    if text is not None and names_hook(text):
        return text
    return with_item(text or "", entry("", local=is_local()).splitlines())


def names_hook(text: str) -> bool:
    """Whether a configuration names our hook. Raises `ConfigurationError` if it cannot be read."""
    return HOOK in hook_ids(load(text))


def remove_entry(text: str | None) -> str | None:
    """Without our entry; None if nothing else was in the file."""
    if text is None:
        return None
    for indent, local in itertools.product(("  ", "", "    "), (False, True)):
        ours = entry(indent, local=local)
        for written in (ours, ours.replace("\n", "\r\n")):
            if written in text:
                rest = text.replace(written, "", 1)
                return None if rest.strip() == "repos:" else rest
    if HOOK not in text:
        return text
    items = [load(f"repos:\n{entry('', local=local)}")["repos"][0] for local in (False, True)]
    return without_item(text, items) or text


def entry(indent: str, *, local: bool = False) -> str:
    """The entry, as an item of ``repos`` that is indented like its neighbours."""
    stored = template("pre-commit.yaml").read_text(encoding="utf-8")
    if local:
        stored = _INSTALLED.sub("", stored).replace("language: python", "language: system")
    lines = stored.replace("{version}", __version__).splitlines()
    return "".join(f"{indent}{line}\n" for line in lines)


def is_local() -> bool:
    """Whether we were installed from a folder, which pre-commit and CI do not have (PEP 610)."""
    try:
        told = distribution("state-bundler").read_text("direct_url.json")
    except PackageNotFoundError:
        return False
    return told is not None and str(json.loads(told).get("url", "")).startswith("file:")
