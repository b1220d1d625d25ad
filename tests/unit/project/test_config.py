from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bundler.errors import ConfigurationError
from bundler.project.config import Config, json_schema, load, parse, seconds
from bundler.project.options import SourceOptions

FILE = Path("/project/pyproject.toml")

EVERYTHING = """
[tool.state-bundler]
refresh = "missing"
timeout = "5m"
total-timeout = "1h"
jobs = 4
kind-jobs = { "*.Tableau*" = 2 }
attempts = 2
shrink = 0.25
baseline = "last"
allow-stale = "24h"
secrets = ["PASSPHRASE"]
not-secrets = ["PUBLIC_KEY"]
image-path = "/app/shop/defs/.local_defs_state"
environment = "prod"

[tool.state-bundler.guard]
allow = ["tests/fixtures/**"]

[tool.state-bundler.keys."Fivetran*"]
allow_http = ["GET /v1/connectors/*/schemas 404"]
allow-empty = true

[[tool.state-bundler.source]]
key = "VendorCatalog"
command = ["python", "-m", "shop.fetch", "{state_path}"]
path = "src/shop/state"
"""


def test_every_name_is_read(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(EVERYTHING)
    config = load(tmp_path)
    refresh = config.refresh
    assert refresh.mode_of("x") == "missing"
    assert refresh.defaults.timeout == 300
    assert (refresh.total_timeout, refresh.jobs, refresh.allow_stale) == (3600, 4, 86400)
    assert refresh.kind_jobs == {"*.Tableau*": 2}
    assert refresh.baseline == "last"
    assert refresh.of_key("Fivetran[a]").allow_http == ("GET /v1/connectors/*/schemas 404",)
    assert refresh.of_key("Fivetran[a]").allow_empty is True
    assert refresh.of_key("Other").allow_empty is None
    assert config.guard_allow == ("tests/fixtures/**",)
    assert config.image_path == "/app/shop/defs/.local_defs_state"
    command = ("python", "-m", "shop.fetch", "{state_path}")
    assert config.sources == (
        SourceOptions(path=Path("src/shop/state"), key="VendorCatalog", command=command),
    )
    assert "kind-jobs" in config.given


def test_no_table_and_no_file_are_the_defaults(tmp_path: Path) -> None:
    assert load(tmp_path) == Config(tmp_path / "pyproject.toml")
    (tmp_path / "pyproject.toml").write_text("[project]\nname = 'x'\n")
    assert load(tmp_path) == Config(tmp_path / "pyproject.toml")


def test_windows_line_ends_are_read(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_bytes(b"[tool.state-bundler]\r\njobs = 3\r\n")
    assert load(tmp_path).refresh.jobs == 3


@pytest.mark.parametrize(
    ("table", "sentence", "hint"),
    [
        ({"timeot": "5m"}, r"\[tool.state-bundler\] has no 'timeot'", "Did you mean 'timeout'?"),
        ({"zzz": 1}, "has no 'zzz'", "Known: allow-credential-files"),
        ({"keys": {"a": {"shrnk": 1}}}, r'keys\."a"\] has no \'shrnk\'', "Did you mean 'shrink'?"),
        ({"guard": {"alow": []}}, r"\[tool.state-bundler.guard\] has no 'alow'", "'allow'"),
        ({"guard": 1}, "is not a table", ""),
        ({"source": [{"path": "x", "kay": "y"}]}, "has no 'kay'", "'key'"),
        ({"timeout": 5}, "timeout: expected text, got an integer", "Timeout per key"),
        ({"timeout": "5 min"}, "timeout: expected a number and a unit, such as 30s", ""),
        ({"attempts": 0}, "attempts: expected an integer >= 1", "Maximum attempts"),
        ({"refresh": "sometimes"}, "refresh: unknown value 'sometimes'", "`always`"),
        ({"allow-empty": "yes"}, "allow-empty: expected true or false, got text", ""),
        ({"exclude": "*.log"}, "exclude: expected a list, got text", "Patterns of paths"),
        ({"exclude": [1]}, r"exclude\[0\]: expected text", "Patterns of paths"),
        ({"keys": []}, "keys: expected a table, got a list", "Settings for one key"),
        ({"keys": {"a": {"jobs": {}}}}, "has no 'jobs'", ""),
        ({"keys": {"a": {"attempts": []}}}, "keys.attempts: expected an integer", "Maximum"),
        ({"max-removed": []}, "expected an integer or text or a table", "a refresh may remove"),
        ({"guard": {"allow": "x"}}, "guard.allow: expected a list, got text", "Correct it."),
        ({"source": [{"key": "x"}]}, r"source\[0\]: there is no 'path'", ""),
        ({"source": [{"path": "x", "key": "k", "command": "a"}]}, "a list", "a list of words"),
        ({"source": [{"path": "x"}]}, "requires either `command` or `component`", ""),
        ({"source": [{"path": "x", "command": ["a"]}]}, "requires a `key`", ""),
        ({"source": [{"path": "../x", "component": "a:B"}]}, "not inside the project", ""),
    ],
)
def test_a_mistake_is_reported_with_file_table_and_key(
    table: dict[str, Any], sentence: str, hint: str
) -> None:
    with pytest.raises(ConfigurationError, match=sentence) as caught:
        parse(table, FILE)
    assert str(FILE) in caught.value.what
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    "text", [b"[tool", b"\xff", b"a = 1\na = 2\n", b"a = " + b"[" * 5000 + b"]" * 5000]
)
def test_a_file_that_is_not_toml_is_an_error(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "pyproject.toml").write_bytes(text)
    with pytest.raises(ConfigurationError, match="is not valid TOML"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("duration", "expected"), [("30s", 30), ("5m", 300), ("1.5h", 5400), ("7d", 604800)]
)
def test_durations(duration: str, expected: float) -> None:
    assert seconds(duration) == expected


@pytest.mark.parametrize("duration", ["", "5", "m", "-5m", "5 m", "5w", "1e3s"])
def test_an_invalid_duration_is_refused(duration: str) -> None:
    with pytest.raises(ConfigurationError, match="is not a duration"):
        seconds(duration)


def test_the_schema_accepts_what_the_parser_accepts() -> None:
    from jsonschema import Draft202012Validator

    try:
        import tomllib
    except ModuleNotFoundError:
        import tomli as tomllib
    table = tomllib.loads(EVERYTHING.replace("allow_http", "allow-http"))["tool"]["state-bundler"]
    validator = Draft202012Validator(json_schema())
    validator.validate(table)
    assert not validator.is_valid({"timeot": "5m"})


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("5", {"assets": "5"}),
        ('"20%"', {"assets": "20%"}),
        ('{ assets = "2.5%", asset-checks = 0 }', {"assets": "2.5%", "asset checks": "0"}),
    ],
)
def test_removals_are_limited_by_a_count_a_share_or_by_kind(
    tmp_path: Path, text: str, found: object
) -> None:
    (tmp_path / "pyproject.toml").write_text(f"[tool.state-bundler]\nmax-removed = {text}\n")
    assert load(tmp_path).refresh.of_key("any").max_removed == found


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("-1", "-1 is neither a count nor a share"),
        ('"many"', "'many' is neither a count nor a share"),
        ('"1.5"', "'1.5' is neither a count nor a share"),
        ("{ asset = 1 }", "max-removed has no 'asset'"),
        ("true", "max-removed"),
    ],
)
def test_other_limits_are_errors(tmp_path: Path, text: str, what: str) -> None:
    (tmp_path / "pyproject.toml").write_text(f"[tool.state-bundler]\nmax-removed = {text}\n")
    with pytest.raises(ConfigurationError, match=what):
        load(tmp_path)
