"""The project's own check of a state before it is published: a JSON schema, or a command."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from bundler.errors import BadData, ConfigurationError
from bundler.project.options import KeyOptions
from bundler.refresh.secrets import Secrets
from bundler.system import process
from bundler.system.installed import installed

# A schema is applied to the whole document, which needs several times its size of memory.
_MAX_BYTES = 64 * 1024 * 1024
_MAX_SAID = 300


def validate(
    key: str,
    state_path: Path,
    options: KeyOptions,
    *,
    root: Path,
    environment: Mapping[str, str],
    secrets: Secrets,
) -> None:
    """Raises `BadData` if the state does not satisfy the configured checks."""
    if options.json_schema is not None:
        _against_schema(key, state_path, options.json_schema, secrets)
    if options.validate:
        argv = [part.replace("{state_path}", str(state_path)) for part in options.validate]
        _by_command(key, argv, root=root, environment=environment, secrets=secrets)


def _against_schema(key: str, state_path: Path, schema: Path, secrets: Secrets) -> None:
    try:
        jsonschema: Any = importlib.import_module("jsonschema")  # an extra; it has no types
    except ImportError as error:
        raise ConfigurationError.of_key(
            key,
            "json-schema requires the package jsonschema, which is not installed.",
            hint=f"Install it: {installed().command('schema')}",
        ) from error
    document = _read(key, state_path, "the state")
    try:
        validator = jsonschema.validators.validator_for(rules := _read(key, schema, str(schema)))
        validator.check_schema(rules)
    except jsonschema.SchemaError as error:
        raise ConfigurationError(f"{schema} is not a JSON schema: {error.message}.") from error
    problem = jsonschema.exceptions.best_match(validator(rules).iter_errors(document))
    if problem is not None:
        said = secrets.redact(problem.message)[:_MAX_SAID].rstrip(".")
        raise BadData.of_key(
            key,
            f"the state does not match {schema.name}: {said} (at {problem.json_path}).",
            hint="Check what the API returns, and the schema.",
        )


def _read(key: str, path: Path, what: str) -> Any:
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise BadData.of_key(
                key,
                f"{what} is too large to validate against a schema.",
                hint="Use a command in `validate` instead of `json-schema`.",
            )
        return msgspec.json.decode(path.read_bytes())
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}.") from error
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise BadData.of_key(
            key, f"{what} is not JSON.", hint="Check what the API returns, and the schema."
        ) from error


def _by_command(
    key: str, argv: list[str], *, root: Path, environment: Mapping[str, str], secrets: Secrets
) -> None:
    done = process.run(argv, cwd=root, env=environment)
    if done.exit_code:
        last = process.last_word((done.stderr or done.stdout).decode("utf-8", "replace"))
        said = secrets.redact(last)[:_MAX_SAID].rstrip(".") or "it printed nothing"
        raise BadData.of_key(
            key,
            f"{argv[0]} rejects the state: {said}.",
            hint="Check what the API returns, and the command in `validate`.",
        )
