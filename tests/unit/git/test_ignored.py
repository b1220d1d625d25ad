"""What git ignores below a folder."""

from __future__ import annotations

import pytest

from bundler.git.ignored import ignored_below
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
