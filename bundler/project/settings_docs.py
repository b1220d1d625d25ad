"""What each setting of ``[tool.state-bundler]`` means, in a sentence: for editors and for docs.

By table and name, as they are written. A test compares this with the models in `project.config`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# What can be said of all keys, and of one in [tool.state-bundler.keys."KEY"].
KEY: Mapping[str, str] = {
    "refresh": "Ask the external system `always`, only where a key has no state that verifies "
    "(`missing`), or `never`. Default: `always`.",
    "timeout": "For one key, all attempts together. Default: `5m`.",
    "attempts": "Most calls of a component for one state. Default: 3.",
    "allow-empty": "An empty state is as it should be. Default: `false`.",
    "shrink": "The share of the baseline's entries below which a state is refused; 0 turns the "
    "check off. Default: 0.5.",
    "min-entries": "Fewer entries (items of the outermost lists) are refused.",
    "allow-http": "Failed requests that are expected, as `METHOD PATH STATUS` with `*`, such as "
    "`GET /v1/connectors/*/schemas 404`, or with the name of what is wrong with the body, such as "
    "`GET /news/* html`.",
    "exclude": "Patterns of paths to leave out of a state, beyond the usual ones.",
    "include": "Patterns of paths to keep in spite of them.",
    "allow-key-material": "Patterns of files in a state that may hold private keys and tokens.",
    "volatile": "Names of JSON members that change at each run without meaning anything.",
    "writable": "Paths in a key's directory that the program may write to at run time.",
    "json-schema": "A file with the JSON schema that a state must satisfy.",
    "validate": "A command that must succeed; `{state_path}` stands for the state.",
    "reach": "A command by which `doctor` asks whether the external system answers.",
}
ROOT: Mapping[str, str] = {
    **KEY,
    "total-timeout": "For a whole refresh. Default: `30m`.",
    "jobs": "Keys that are refreshed at once. Default: 32.",
    "kind-jobs": "At once of one kind of component, by a pattern of its class, such as "
    '`"*.FivetranAccountComponent" = 2`.',
    "baseline": "An artifact, a store or a directory whose states new ones are compared with and "
    "may fall back to. Default: what is published here.",
    "allow-stale": "The greatest age of a baseline that may stand in for an unavailable system. "
    "Default: never.",
    "secrets": "Names of variables that are secret, besides those whose names say so.",
    "not-secrets": "Names of variables that are not, whatever their names say.",
    "image-path": "The state directory's path in an image. Default: where the image's Python "
    "imports the defs module.",
    "environment": "A name for the run record, such as `staging`.",
    "store": "The URL of the versioned state storage.",
    "guard": "See the table below.",
    "keys": "A table for a key, or for all that a pattern with `*` matches.",
    "source": "See the table below; one for each state of a program without Dagster.",
}
GUARD: Mapping[str, str] = {
    "allow": "Paths or patterns of state that is committed on purpose, such as fixtures.",
}
SOURCE: Mapping[str, str] = {
    "path": "The state directory, relative to the project: a directory for state alone.",
    "key": "The defs state key; needed for a `command`, a component knows its own.",
    "command": "What writes the state to `{state_path}`: a list of words, never a shell's line.",
    "component": 'Instead of a command: `"package.module:Class"`, a '
    "`bundler.component.StateBackedComponent`.",
    "place": "Where the program looks for the state directory, relative to the root of its "
    "imports. Default: `path` without a leading `src`.",
}
_BY_MODEL = {"_Root": ROOT, "_KeyTable": KEY, "_GuardTable": GUARD, "_SourceTable": SOURCE}


def described(schema: dict[str, Any]) -> dict[str, Any]:
    """The configuration's JSON schema with a description at every setting."""
    for model, definition in schema["$defs"].items():
        for name, setting in definition.get("properties", {}).items():
            meaning = _BY_MODEL[model].get(name)
            if meaning and "$ref" not in setting:
                setting["description"] = meaning.replace("`", "'")
    return schema
