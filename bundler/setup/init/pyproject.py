"""Edits pyproject.toml: our table, and the backend setting that includes git-ignored files in
wheels.

A new table is appended as text, everything else goes through tomlkit: comments, order and white
space survive. Each change is then parsed again. If it does anything but what was intended, an
addition is an error, and a removal is discarded.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from bundler.errors import ConfigurationError
from bundler.project.config import pyproject_of, table
from bundler.project.survey import Survey
from bundler.setup.file_edits import newline_of
from bundler.state.bundle import STATE_DIRECTORY
from bundler.system import toml

if TYPE_CHECKING:
    from bundler.project.classic_dbt import ClassicDbt

OURS = "state-bundler init"
_DAGSTER_TABLE = f"""\
# {OURS}: every setting has a default; one for a single key goes into its own table:
#   [tool.state-bundler.keys."VendorCatalog[products]"]
#   timeout = "5m"
[tool.state-bundler]
# A refresh that removes more of a key's assets is refused; --allow-removed KEY lets it pass.
max-removed = "20%"
"""
_DAGSTER_SETTINGS = {"max-removed": "20%"}
_SOURCE_TABLE = f"""\
# {OURS}: configure where each state comes from; the command writes it to {{state_path}}. The
# path is a new directory for state alone: a refresh replaces and removes what is in it. Example:
#   [[tool.state-bundler.source]]
#   key = "VendorCatalog"
#   command = ["python", "-m", "package.fetch", "{{state_path}}"]
#   path = "src/package/state"
[tool.state-bundler]
"""

_DBT_TABLE = f"""\
# {OURS}: runs dbt parse before each build. {{code}} must read the
# manifest from where it ships: Path(__file__).parent / "{{manifest}}"
[[tool.state-bundler.source]]
{{items}}"""


def add_table(text: str | None, survey: Survey) -> str | None:
    """With a ``[tool.state-bundler]`` below a comment about its settings.

    Raises `ConfigurationError` if it cannot be added safely.
    """
    if "state-bundler" in table(survey.pyproject, "tool"):
        return text
    if text is None and survey.classic_dbt is None:
        return None
    before = text or ""
    candidates = [_append(before, _table_of(survey))]
    way_out = "Add [tool.state-bundler] by hand, or skip it: state-bundler init --without table"
    return _checked(survey, before, candidates, _sources_of(survey), way_out)


def remove_table(text: str | None, survey: Survey) -> str | None:
    """Without what `add_table` wrote, if nothing was added to the table."""
    ours: dict[str, Any] = {} if survey.dagster is None else _DAGSTER_SETTINGS
    if sources := _sources_of(survey):
        ours = {"source": sources}
    if text is None or table(survey.pyproject, "tool").get("state-bundler") != ours:
        return text
    return _cut(text, _table_of(survey), sources) or None


def _table_of(survey: Survey) -> str:
    if survey.classic_dbt is not None:
        return dbt_table(survey.classic_dbt, survey.root)
    return _SOURCE_TABLE if survey.dagster is None else _DAGSTER_TABLE


def _sources_of(survey: Survey) -> list[Any]:
    """The source that runs dbt, if that is the only state."""
    return [] if survey.classic_dbt is None else [_dbt_source(survey.classic_dbt)]


def _dbt_source(found: ClassicDbt) -> dict[str, Any]:
    return {"key": found.key, "command": found.command, "path": found.state_path}


def dbt_table(found: ClassicDbt, root: Path) -> str:
    """The source that runs dbt, as lines of TOML."""
    code = os.path.relpath(found.code, root)
    items = "".join(f"{_key(k)} = {_inline(v)}\n" for k, v in _dbt_source(found).items())
    return _DBT_TABLE.format(code=code, manifest=found.manifest, items=items)


# --- the build backend ----------------------------------------------------------------------


def add_backend_list(text: str | None, survey: Survey) -> str | None:
    """With the state in the backend's list of git-ignored files to include.

    Raises `ConfigurationError` if it cannot be added safely.
    """
    target = backend_list(survey)
    if text is None or target is None:
        return text
    path, items = target
    present = table(survey.pyproject, *path[:-1]).get(path[-1], [])
    if not isinstance(present, list) or all(item in present for item in items):
        return text
    way_out = (
        f"Add {', '.join(map(_inline, items))} to {'.'.join(map(_key, path))} by hand, or skip it: "
        "state-bundler init --without backend"
    )
    missing = [item for item in items if item not in present]
    return _checked(survey, text, _with_items(text, path, missing), items, way_out)


def remove_backend_list(text: str | None, survey: Survey) -> str | None:
    """Without what `add_backend_list` wrote."""
    target = backend_list(survey)
    if text is None or target is None:
        return text
    path, items = target
    cut = _cut(text, _backend_table(path, items), items)
    return cut if cut != text else _verified(text, _without_items(text, path, items), items)


def backend_list(survey: Survey) -> tuple[tuple[str, ...], list[Any]] | None:
    """The list that names what ships though git ignores it, and what is to be in it.

    None for a backend that ships the state anyhow, or that we know nothing of, and for state in
    no package. The lists were found by measurement: what looks equivalent often is not.
    """
    directories = survey.state_directories
    if survey.backend == "hatchling" and directories:
        items = [_hatch_pattern(directory) for directory in directories]
        return ("tool", "hatch", "build", "artifacts"), list(dict.fromkeys(items))
    if survey.backend == "poetry" and directories:
        included = [
            {"path": f"{directory}/**/*", "format": ["sdist", "wheel"]} for directory in directories
        ]
        return ("tool", "poetry", "include"), list(included)
    if survey.backend == "setuptools" and (found := _package_data(survey)):
        package, patterns = found
        return ("tool", "setuptools", "package-data", package), patterns
    return None


def _hatch_pattern(directory: PurePosixPath) -> str:
    """Dagster's own directory wherever it is, which requires the stars."""
    is_dagsters = directory.name == STATE_DIRECTORY
    return f"**/{STATE_DIRECTORY}/**" if is_dagsters else f"/{directory}/**"


def _package_data(survey: Survey) -> tuple[str, list[Any]] | None:
    """The package that the first state directory is in, and those of its directories' files."""
    found: dict[str, list[Any]] = {}
    for directory, place in survey.places.items():
        parts = place.split("/")
        depth = 1
        if survey.dagster is not None and directory.name == STATE_DIRECTORY:
            depth = len(survey.dagster.root.split("."))
        if len(parts) > depth:
            package = ".".join(parts[:depth])
            found.setdefault(package, []).append("/".join((*parts[depth:], "**")))
    return next(iter(found.items()), None)


def toml_block(path: Sequence[str], value: Any) -> str:
    """A table with one key in it, as lines of TOML."""
    return f"{_header(path)}\n{_key(path[-1])} = {_inline(value)}\n"


def _backend_table(path: Sequence[str], items: list[Any]) -> str:
    return (
        f"# {OURS}: the build leaves out what git ignores, and the state is ignored.\n"
        f"{toml_block(path, items)}"
    )


def _header(path: Sequence[str]) -> str:
    return f"[{'.'.join(_key(part) for part in path[:-1])}]"


def _key(name: str) -> str:
    bare = name.replace("-", "").replace("_", "")
    return name if bare.isalnum() and bare.isascii() else _inline(name)


def _inline(item: Any) -> str:
    if isinstance(item, Mapping):
        return (
            "{ "
            + ", ".join(f"{_key(key)} = {_inline(value)}" for key, value in item.items())
            + " }"
        )
    if isinstance(item, list):
        return "[" + ", ".join(map(_inline, item)) + "]"
    import tomlkit

    return str(tomlkit.item(item).as_string())


def _with_items(text: str, path: Sequence[str], items: list[Any]) -> Iterator[str]:
    """With items in a list: in a new table, below the table's header, or as tomlkit does it.

    The first two are not TOML where the table, or the list in it, is written already.
    """
    import tomlkit

    yield _append(text, _backend_table(path, items))
    header = f"[{'.'.join(path[:-1])}]"
    for number, line in enumerate(text.splitlines()):
        if line.split("#")[0].strip().replace(" ", "") == header:
            yield _below(text, number, f"{_key(path[-1])} = {_inline(items)} # {OURS}")
    document = tomlkit.parse(text)
    parent, inline = _parent(document, path)
    if parent is None:
        return
    if path[-1] not in parent:
        parent[path[-1]] = tomlkit.array()
    array = parent[path[-1]]
    for item in items:
        array.append(item)
    commented = inline or array
    if not commented.trivia.comment:
        commented.comment(OURS)
    yield tomlkit.dumps(document)


def _parent(document: Any, path: Sequence[str]) -> tuple[Any, Any]:
    """The table that a path's last key belongs to, and the outermost inline table around it.

    A comment is only possible behind the latter. None for what does not exist.
    """
    from tomlkit.items import InlineTable

    inline = None
    for part in path[:-1]:
        document = document.get(part) if isinstance(document, Mapping) else None
        if inline is None and isinstance(document, InlineTable):
            inline = document
    return document if isinstance(document, Mapping) else None, inline


def _below(text: str, number: int, line: str) -> str:
    """With another line: what follows a table's last key may be about the next table."""
    lines = text.splitlines(keepends=True)
    newline = newline_of(text)
    lines[number] = lines[number].rstrip("\r\n") + newline
    return "".join([*lines[: number + 1], line, newline, *lines[number + 1 :]])


def _without_items(text: str, path: Sequence[str], items: Sequence[Any]) -> str:
    """Without these items at the list's end, if our comment next to it says that they are ours."""
    import tomlkit

    document = tomlkit.parse(text)
    parent, inline = _parent(document, path)
    array = None if parent is None else parent.get(path[-1])
    if array is None:
        return text
    commented: Any = array if inline is None else inline
    if OURS not in commented.trivia.comment:
        return text
    while array and array[-1] in items:
        array.pop()
    commented.trivia.comment = commented.trivia.comment_ws = ""
    if not array:
        del parent[path[-1]]
    return tomlkit.dumps(document)


# --- text -----------------------------------------------------------------------------------


def _append(text: str, block: str) -> str:
    newline = newline_of(text)
    head = text if not text or text.endswith("\n") else text + newline
    return head + (newline if head else "") + block.replace("\n", newline)


def _cut(text: str, block: str, items: Sequence[Any] = ()) -> str:
    newline = newline_of(text)
    block = block.replace("\n", newline)
    for ours in (newline + block, block):
        if ours in text:
            return _verified(text, text.replace(ours, "", 1), items)
    return text


def _checked(
    survey: Survey, before: str, candidates: Iterable[str], items: Sequence[Any], way_out: str
) -> str:
    """The first that is `before` and what we write. Raises `ConfigurationError` if none is."""
    for after in candidates:
        if _verified(before, after, items) == after:
            return after
    raise ConfigurationError(
        f"{pyproject_of(survey.root)} cannot be changed safely; it was not changed.", hint=way_out
    )


def _verified(before: str, after: str, items: Sequence[Any]) -> str:
    """`after`, if everything in the file that is not ours has kept its meaning.

    items: of a list that are ours.
    """
    try:
        same = _foreign(toml.loads(before), items) == _foreign(toml.loads(after), items)
    except ValueError:
        same = False
    return after if same else before


def _foreign(value: Any, items: Sequence[Any]) -> Any:
    """A document without anything that we write, and without what is then empty."""
    if isinstance(value, Mapping):
        parts = {key: _foreign(part, items) for key, part in value.items()}
        ours = _DAGSTER_SETTINGS.items()
        return {
            key: part
            for key, part in parts.items()
            if part not in ({}, []) and (key, part) not in ours
        }
    if isinstance(value, list):
        return [_foreign(item, items) for item in value if item not in items]
    return value
