"""What git ignores below a folder."""

from __future__ import annotations

import pytest

from bundler.git import ignored_below
from tests.support.workdir import WorkDir


@pytest.mark.parametrize(
    ("rules", "found"),
    [
        ("", []),
        ("a\n", ["a"]),
        ("a\nb/c\n", ["a", "b/c"]),
        ("*\n", [".gitignore", "a", "b"]),
    ],
)
def test_each_path_once_and_nothing_where_nothing_is_ignored(
    rules: str, found: list[str], wd: WorkDir
) -> None:
    for name in ("a", "b/c"):
        wd.write(name, "")
    wd.write(".gitignore", rules)
    assert sorted(ignored_below(wd.path)) == found


@pytest.mark.parametrize(
    ("names", "rules", "found"),
    [
        (["prod.db", "prod.db-wal"], "prod.db*\n", ["prod.db", "prod.db-wal"]),
        ([".env", ".env.local", "x/.env"], ".env*\n", [".env", ".env.local", "x/.env"]),
        (["settings", "settings.json"], "settings*\n", ["settings", "settings.json"]),
        (["a/x", "ab/x"], "a\nab\n", ["a", "ab"]),
        (["a/x", "a.d/x", "a-b"], "a\na.d\na-b\n", ["a", "a-b", "a.d"]),
        (["key", "key.d/x", "keys"], "key*\n", ["key", "key.d", "keys"]),
        (["d/key", "d/key.pem", "d/kept"], "key*\n", ["d/key", "d/key.pem"]),
    ],
)
def test_a_name_that_begins_the_next_one_is_found_too(
    names: list[str], rules: str, found: list[str], wd: WorkDir
) -> None:
    for name in (*names, "kept/file"):
        wd.write(name, "")
    wd.write(".gitignore", rules)
    assert sorted(ignored_below(wd.path)) == found
    if names[0].startswith("d/"):
        assert sorted(ignored_below(wd.path / "d")) == [name[2:] for name in found]
