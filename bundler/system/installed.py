"""How this copy was installed, so that others install the same and nothing else (PEP 610).

The name alone is not enough: an index without this program may get another one with that name, and
whatever is installed in a build gets its credentials.
"""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from bundler.system import toml
from bundler.system.url_credentials import without_credentials
from bundler.version import __version__

NAME = "state-bundler"


class Installed(msgspec.Struct, frozen=True):
    """How to install this copy again.

    source: what follows the name in a requirement. is_portable: whether other machines have it.
    index: of a package index that the installer recorded, uv's option and the address.
    """

    source: str
    is_portable: bool = True
    index: tuple[str, ...] = ()

    def requirement(self, extra: str = "") -> str:
        """The requirement for pip and uv."""
        return f"{NAME}[{extra}]{self.source}" if extra else f"{NAME}{self.source}"

    def command(self, extra: str = "") -> str:
        """The command that installs it as a tool."""
        return shlex.join(["uv", "tool", "install", *self.index, self.requirement(extra)])


def installed() -> Installed:
    """How the running copy was installed. A copy without metadata is a folder on PYTHONPATH."""
    from importlib.metadata import PackageNotFoundError, distribution

    try:
        found = distribution(NAME)
    except PackageNotFoundError:
        return Installed(f" @ {Path(__file__).parents[2].as_uri()}", is_portable=False)
    direct = json.loads(found.read_text("direct_url.json") or "null")
    if direct is None:
        receipt = Path(sys.prefix, "uv-receipt.toml")
        text = receipt.read_text(encoding="utf-8") if receipt.exists() else ""
        return Installed(f"=={__version__}", index=_index_of(text))
    return from_direct_url(direct)


def from_direct_url(direct: Mapping[str, Any]) -> Installed:
    """Parses ``direct_url.json``: a commit, an archive or a folder."""
    url = without_credentials(str(direct["url"]))
    fragments = [f"subdirectory={direct['subdirectory']}"] if direct.get("subdirectory") else []
    portable = not url.startswith("file:")
    if vcs := direct.get("vcs_info"):
        url = f"{vcs['vcs']}+{url}@{vcs['commit_id']}"
        portable = True  # a commit is the same everywhere; a path may be a mount
    elif archive := direct.get("archive_info"):
        hashes = archive.get("hashes") or {}
        old = str(archive.get("hash") or "").partition("=")[2]
        if sha256 := hashes.get("sha256") or old:
            fragments.append(f"sha256={sha256}")
    fragment = f"#{'&'.join(fragments)}" if fragments else ""
    return Installed(f" @ {url}{fragment}", portable)


def _index_of(receipt: str) -> tuple[str, ...]:
    """The index that ``uv tool install`` recorded."""
    options = toml.loads(receipt).get("tool", {}).get("options", {})
    if url := options.get("index-url"):
        return ("--default-index", without_credentials(str(url)))
    for index in options.get("index", []):
        option = "--default-index" if index.get("default") else "--index"
        return (option, without_credentials(str(index["url"])))
    return ()
