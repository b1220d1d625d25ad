"""Every setting has its environment variable, which goes before the file."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

from bundler.errors import ConfigurationError
from bundler.project import environment_settings
from bundler.project.config import _Root, of_pyproject
from bundler.project.options import RefreshOptions
from tests.support import forked
from tests.support.environments import ROOT

FILE = Path("/project/pyproject.toml")
KEY = "Feed[x]"
# A value for the variable of each setting, and how the configuration then shows it.
VALUES = {
    "REFRESH": ("never", lambda config: config.refresh.mode_of(KEY), "never"),
    "TIMEOUT": ("90s", lambda config: config.refresh.of_key(KEY).timeout, 90.0),
    "ATTEMPTS": ("7", lambda config: config.refresh.of_key(KEY).attempts, 7),
    "ALLOW_EMPTY": ("true", lambda config: config.refresh.of_key(KEY).allow_empty, True),
    "SHRINK": ("0.9", lambda config: config.refresh.of_key(KEY).shrink, 0.9),
    "MIN_ENTRIES": ("3", lambda config: config.refresh.of_key(KEY).min_entries, 3),
    "ALLOW_HTTP": (
        "GET /a 404, GET /b 4xx",
        lambda config: config.refresh.of_key(KEY).allow_http,
        ("GET /a 404", "GET /b 4xx"),
    ),
    "EXCLUDE": ("*.tmp", lambda config: config.refresh.of_key(KEY).exclude, ("*.bak", "*.tmp")),
    "INCLUDE": ('["a,b"]', lambda config: config.refresh.of_key(KEY).include, ("a,b",)),
    "ALLOW_KEY_MATERIAL": (
        "x.pem",
        lambda config: config.refresh.of_key(KEY).allow_key_material,
        ("x.pem",),
    ),
    "VOLATILE": ("at", lambda config: config.refresh.of_key(KEY).volatile, ("at",)),
    "WRITABLE": ("a,b", lambda config: config.refresh.of_key(KEY).writable, ("a", "b")),
    "JSON_SCHEMA": (
        "s.json",
        lambda config: config.refresh.of_key(KEY).json_schema,
        Path("/project/s.json"),
    ),
    "MAX_REMOVED": (
        '{assets = "20%", jobs = 0}',
        lambda config: config.refresh.of_key(KEY).max_removed,
        {"assets": "20%", "jobs": "0"},
    ),
    "VALIDATE": (
        "check 'the state' {state_path}",
        lambda config: config.refresh.of_key(KEY).validate,
        ("check", "the state", "{state_path}"),
    ),
    "REACH": ('["a b", "c"]', lambda config: config.refresh.of_key(KEY).reach, ("a b", "c")),
    "TOTAL_TIMEOUT": ("2h", lambda config: config.refresh.total_timeout, 7200.0),
    "JOBS": ("3", lambda config: config.refresh.jobs, 3),
    "KIND_JOBS": ('{"*.X" = 2}', lambda config: config.refresh.kind_jobs, {"*.X": 2}),
    "BASELINE": ("shop:1", lambda config: config.refresh.baseline, "shop:1"),
    "ALLOW_STALE": ("1d", lambda config: config.refresh.allow_stale, 86400.0),
    "SECRETS": ("A,B", lambda config: config.refresh.secrets, ("F", "A", "B")),
    "NOT_SECRETS": ("C", lambda config: config.refresh.not_secrets, ("C",)),
    "ALLOW_CREDENTIAL_FILES": ("a,b/*", lambda config: config.credential_files, ("a", "b/*")),
    "IMAGE_PATH": ("/x", lambda config: config.image_path, "/x"),
    "ENVIRONMENT": ("prod", lambda config: config.environment, "prod"),
    "STORE": ("s3://b", lambda config: config.store, "s3://b"),
    "GUARD_ALLOW": ("a/**, b", lambda config: config.guard_allow, ("a/**", "b")),
    "KEYS": (
        '{"Other*" = {jobs = 1}}',
        None,
        "unknown field",
    ),
    "SOURCE": (
        '[{path = "s", key = "K", command = ["x"]}]',
        lambda config: [source.key for source in config.sources],
        ["K"],
    ),
}  # fmt: skip
TABLES = {
    "tool": {
        "state-bundler": {
            "refresh": "missing",
            "jobs": 9,
            "exclude": ["*.bak"],
            "secrets": ["F"],
            "environment": "test",
            "keys": {KEY: {"refresh": "always", "timeout": "1s", "attempts": 1}},
        }
    }
}


def test_every_setting_has_a_variable_here() -> None:
    names = {name.upper() for name in _Root.__struct_fields__} - {"GUARD"}
    assert names | {"GUARD_ALLOW"} == VALUES.keys()
    guard = msgspec.structs.fields(_Root)
    assert [f.name for f in guard if f.name == "guard"]


@pytest.mark.parametrize("name", VALUES)
def test_a_variable_goes_before_the_file_and_before_a_keys_own_table(name: str) -> None:
    text, look, wanted = VALUES[name]
    environ = {f"STATE_BUNDLER_{name}": text}
    if look is None:
        with pytest.raises(ConfigurationError, match=str(wanted)):
            of_pyproject(TABLES, FILE, environ)
        return
    assert look(of_pyproject(TABLES, FILE, environ)) == wanted
    assert look(of_pyproject(TABLES, FILE, {f"STATE_BUNDLER_{name}": ""})) == look(
        of_pyproject(TABLES, FILE, {})
    )


def test_tables_for_keys_can_be_given() -> None:
    environ = {"STATE_BUNDLER_KEYS": '{"Other*" = {attempts = 5}}'}
    assert of_pyproject(TABLES, FILE, environ).refresh.of_key("Other[1]").attempts == 5


def test_the_command_line_goes_before_a_variable() -> None:
    config = of_pyproject(TABLES, FILE, {"STATE_BUNDLER_REFRESH": "never"})
    assert RefreshOptions(mode="always").over(config.refresh).mode_of(KEY) == "always"
    assert RefreshOptions().over(config.refresh).mode_of(KEY) == "never"


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("REFRESH", "nevver", "nevver"),
        ("JOBS", "many", "expected an integer"),
        ("JOBS", "0", ">= 1"),
        ("TIMEOUT", "soon", "a number and a unit"),
        ("TIMEOUT", "90", "a number and a unit"),
        ("SHRINK", "2", "<= 1.0"),
        ("ALLOW_EMPTY", "maybe", "expected true or false"),
        ("KIND_JOBS", "two", "TOML"),
        ("KIND_JOBS", '{"*.X" = "y"}', "expected an integer"),
        ("EXCLUDE", "[1, 2]", "expected text"),
        ("EXCLUDE", '["a"', "TOML"),
        ("VALIDATE", "a 'b", "quotation"),
        ("SOURCE", '[{paht = "x"}]', "paht"),
    ],
)
def test_a_bad_value_is_named(name: str, value: str, said: str) -> None:
    with pytest.raises(ConfigurationError) as failed:
        of_pyproject({}, FILE, {f"STATE_BUNDLER_{name}": value})
    assert failed.value.what.startswith(f"STATE_BUNDLER_{name}=")
    assert said.lower() in failed.value.what.lower()


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("REFERSH", "Did you mean STATE_BUNDLER_REFRESH?"),
        ("TIME_OUT", "Did you mean STATE_BUNDLER_TIMEOUT?"),
        ("PYTHN", "Did you mean STATE_BUNDLER_PYTHON?"),
        ("refresh", "Did you mean STATE_BUNDLER_"),
        ("GUARD", "Did you mean STATE_BUNDLER_GUARD_ALLOW?"),
    ],
)
def test_an_unknown_variable_is_an_error_with_a_suggestion(name: str, near: str) -> None:
    with pytest.raises(ConfigurationError, match=f"STATE_BUNDLER_{name}") as failed:
        of_pyproject({}, FILE, {f"STATE_BUNDLER_{name}": ""})
    assert failed.value.hint.startswith(near) or name == "refresh"


def test_the_variables_that_are_read_elsewhere_are_known() -> None:
    """No module may read a variable that this one calls unknown."""
    read = set()
    for folder in ("bundler", "hooks"):
        for file in (ROOT / folder).rglob("*.py"):
            read |= set(re.findall(r"\bSTATE_BUNDLER_([A-Z_]+)\b", file.read_text()))
    known = {*environment_settings.OTHERS, *VALUES}
    assert read - known == set()
    assert of_pyproject({}, FILE, {f"STATE_BUNDLER_{n}": "x" for n in environment_settings.OTHERS})


@pytest.mark.slow
def test_on_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(
        '[project]\nname = "shop"\nversion = "1"\n[[tool.state-bundler.source]]\n'
        'path = "state"\nkey = "Feed"\ncommand = ["cp", "/etc/hostname", "{state_path}"]\n'
    )

    def said(**variables: str) -> tuple[int, str]:
        environment = {"PATH": "/usr/bin:/bin", **variables}
        done = forked.said("state-bundler", "refresh", cwd=tmp_path, env=environment)
        return done.returncode, done.stderr

    code, text = said(STATE_BUNDLER_REFRESH="never")
    assert code == 76, text
    assert "has no valid state" in text
    assert said(STATE_BUNDLER_REFRESH="sometimes")[0] == 78
    code, text = said(STATE_BUNDLER_REFESH="never")
    assert code == 78
    assert "Did you mean STATE_BUNDLER_REFRESH?" in text
    assert said(STATE_BUNDLER_JOBS="1")[0] == 0
