"""Directories that are open."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bundler.system.folder import OpenDirectory


def test_a_listing_is_whole_whatever_was_listed_before_or_is_at_the_same_time(
    tmp_path: Path,
) -> None:
    names = {f"a name of some length {number:04}" for number in range(1000)}
    for name in names:
        (tmp_path / name).touch()
    with OpenDirectory(tmp_path) as folder, ThreadPoolExecutor(8) as pool:
        listings = list(pool.map(lambda _: folder.names(), range(40)))
    assert all(len(listing) == len(names) and set(listing) == names for listing in listings)
