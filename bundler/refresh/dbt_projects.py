"""dbt's files in a state: what it may write to, and what it will not find any more."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from bundler.refresh.outcome.exchanges import CopiedDirectory
from bundler.state.tree import StateTree

PARSED = "manifest.json"
_BESIDE_IT = ("partial_parse.msgpack", "semantic_manifest.json")
DECLARATION = "dbt_project.yml"
_PROFILES = "profiles.yml"
# A setting that names a file, and whose value is not absolute, a template, a URL or a variable.
_RELATIVE = re.compile(
    r"(?m)^[ \t-]*(?P<name>(?!search_path)(?:\w+_)?(?:path|keyfile|file|dir|directory)|sslcert"
    r"|sslkey|sslrootcert):[ \t]+[\"']?(?P<value>(?![/~$:{]|\w+:)[^\s\"'#][^\"'#\n]*?)[\"']?[ \t]*"
    r"(?:#.*)?$"
)
_MOST_BYTES = 1024 * 1024


def target_directories(tree: StateTree) -> tuple[str, ...]:
    """The directories to which dbt has parsed a project, whatever ``target-path`` calls them."""
    paths = {file.path for file in tree.files}
    parents = {PurePosixPath(path).parent for path in paths if path.endswith(f"/{PARSED}")}
    return tuple(
        parent.as_posix()
        for parent in sorted(parents)
        if any(f"{parent}/{name}" in paths for name in _BESIDE_IT)
    )


def warnings(copies: Sequence[CopiedDirectory]) -> Iterator[str]:
    """What dbt will not find when it runs in a copy of its project."""
    for copy in copies:
        source = Path(copy.source)
        profiles = f"{copy.target}/{_PROFILES}"
        if not (source / DECLARATION).is_file() or not (source / _PROFILES).is_file():
            continue
        if profiles in (*copy.ignored, *copy.left_out):
            yield (
                f"{profiles} does not ship because git ignores it: where dbt runs, "
                "DBT_PROFILES_DIR must name a directory with a profiles.yml"
            )
            continue
        for found in _RELATIVE.finditer(_text(source / _PROFILES)):
            yield (
                f"{found['name']}: {found['value']} in {profiles} is relative to the project's "
                "directory. dbt runs in a copy of the project, where the path differs: use an "
                "absolute path or env_var()"
            )


def _text(path: Path) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            return stream.read(_MOST_BYTES)
    except OSError:
        return ""
