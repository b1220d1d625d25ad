"""The entry in ``.pre-commit-config.yaml``, put in as text: a YAML writer would lose comments.

It names the version that pre-commit installs; where we were installed from a folder, which no
package index has, it calls the ``state-guard`` that is on PATH.
"""

from __future__ import annotations

import itertools
import json
import re
from importlib.metadata import PackageNotFoundError, distribution

from bundler.setup.file_edits import newline_of
from bundler.system.packaged_files import template
from bundler.version import __version__

HOOK = "no-committed-state"
# What a person runs once in each clone.
INSTALL = "pre-commit install -t pre-commit -t pre-merge-commit"
_INSTALLED = re.compile(r"(?m)^ *additional_dependencies:.*\n")


def add_entry(text: str | None) -> str | None:
    """With our entry at the end of ``repos``; as it was where that cannot be told safely."""
    if text is not None and HOOK in text:
        return text
    if not text:
        return "repos:\n" + entry("  ", local=is_local())
    newline = newline_of(text)
    lines = text.splitlines()
    place = _end_of_repos(lines)
    if place is None:
        return text
    at, indent = place
    ours = entry(indent, local=is_local()).rstrip("\n").split("\n")
    return newline.join([*lines[:at], *ours, *lines[at:]]) + newline


def remove_entry(text: str | None) -> str | None:
    """Without our entry; None where nothing else was in the file."""
    for indent, local in itertools.product(("  ", "", "    "), (False, True)):
        ours = entry(indent, local=local)
        for written in (ours, ours.replace("\n", "\r\n")):
            if text is not None and written in text:
                rest = text.replace(written, "", 1)
                return None if rest.strip() == "repos:" else rest
    return text


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


def _end_of_repos(lines: list[str]) -> tuple[int, str] | None:
    """The number of the line before which a new item of ``repos`` goes, and its indentation."""
    start = next((at for at, line in enumerate(lines) if re.match(r"repos:\s*(#.*)?$", line)), None)
    if start is None:
        return None
    indent: str | None = None
    end = start + 1
    for at in range(start + 1, len(lines)):
        line = lines[at]
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        if indent is None:
            match = re.match(r"( *)- ", line)
            if match is None:
                return None
            indent = match.group(1)
        elif not line.startswith((f"{indent}- ", f"{indent} ")):
            break
        end = at + 1
    return None if indent is None else (end, indent)
