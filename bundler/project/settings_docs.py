"""The meaning of each setting of ``[tool.state-bundler]``, as text for editors and docs.

By table and name, as they are written. A test compares this with the models in `project.config`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Settings for all keys, and for one in [tool.state-bundler.keys."KEY"].
KEY: Mapping[str, str] = {
    "refresh": "When to fetch: `always`, only for keys without valid state "
    "(`missing`), or `never`. Default: `always`.",
    "timeout": "Timeout per key, including retries. Default: `5m`.",
    "attempts": "Maximum attempts per key. Default: 3.",
    "allow-empty": "Accept an empty state. Default: `false`.",
    "shrink": "The share of the baseline's entries below which a state is rejected; 0 disables the "
    "check. Default: 0.5.",
    "min-entries": "Minimum number of entries (items of the outermost lists). `volatile` members "
    "do not count. Only `verify --min-entries` counts them, because an artifact does not name "
    "them.",
    "max-removed": "Maximum number or share of a key's assets that a refresh may remove, such as "
    '`20%`. A table sets it by kind, such as `{ assets = "20%", jobs = 0 }`. Replaces `shrink` if '
    "the code location loads. Default: no limit.",
    "allow-http": "Failed requests to accept, as `METHOD PATH STATUS` with `*` as a wildcard, "
    "such as `GET /v1/connectors/*/schemas 404`. Instead of a status, the name of a fault in the "
    "answer, such as `GET /news/* html`.",
    "exclude": "Patterns of paths to exclude from a state, in addition to the defaults.",
    "include": "Patterns of paths to keep, even if they match `exclude` or the defaults.",
    "allow-key-material": "Patterns of files in a state that may contain private keys and tokens.",
    "volatile": "Names of JSON members whose changes are ignored.",
    "writable": "Paths in a key's directory that the program may write to at run time.",
    "json-schema": "A file with the JSON schema that a state must match.",
    "validate": "A command that must succeed; `{state_path}` is the path of the state.",
    "reach": "A command with which `doctor` checks that the external system responds.",
}
ROOT: Mapping[str, str] = {
    **KEY,
    "total-timeout": "Timeout for the whole refresh. Default: `30m`.",
    "jobs": "Maximum number of keys refreshed concurrently. Default: 32.",
    "kind-jobs": "Maximum number of keys refreshed concurrently per kind of component, by a "
    "pattern of its class, such as "
    '`"*.FivetranAccountComponent" = 2`.',
    "baseline": "The artifact, store or directory to compare new states with, and to fall back to. "
    "Default: the published state.",
    "allow-stale": "The maximum age of a baseline that may replace the state of an unavailable "
    "system. Default: never.",
    "secrets": "Names of variables that are secrets, in addition to those recognised by name.",
    "not-secrets": "Names of variables that are not secrets, although their names suggest it.",
    "allow-credential-files": "Patterns of files with credentials that a PEX or a wheel may "
    "contain, as paths in it, such as `shop/tests/test.key`.",
    "image-path": "Path of the state directory in an image. Default: where the image's Python "
    "imports the defs module.",
    "environment": "Environment to name in the run record, such as `staging`.",
    "store": "The URL of the versioned state storage.",
    "guard": "Settings of the guard.",
    "keys": "Settings for one key, or for all keys that match a pattern with `*`.",
    "source": "The sources of a program without Dagster, one for each state.",
}
GUARD: Mapping[str, str] = {
    "allow": "Paths or patterns of state that is committed on purpose, such as fixtures.",
}
SOURCE: Mapping[str, str] = {
    "path": "The state directory, relative to the project: a directory for state only.",
    "key": "The defs state key; required for a `command`, since a component has its own.",
    "command": "The command that writes the state to `{state_path}`: a list of words, not a shell "
    "command. `{previous_path}` is the path of a copy of the last good state; nothing exists there "
    "if there is no such state.",
    "component": 'Instead of a command: `"package.module:Class"`, a '
    "`bundler.component.StateBackedComponent`.",
    "place": "Where the program looks for the state directory, relative to the root of its "
    "imports. Default: `path` without a leading `src`.",
}
_BY_MODEL = {"_Root": ROOT, "_KeyTable": KEY, "_GuardTable": GUARD, "_SourceTable": SOURCE}


def described(schema: dict[str, Any]) -> dict[str, Any]:
    """The configuration's JSON schema with a description for every setting."""
    for model, definition in schema["$defs"].items():
        for name, setting in definition.get("properties", {}).items():
            meaning = _BY_MODEL[model].get(name)
            if meaning and "$ref" not in setting:
                setting["description"] = meaning.replace("`", "'")
    return schema
