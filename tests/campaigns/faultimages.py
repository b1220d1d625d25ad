"""File systems of the fault campaign's own, in images: to cut their power."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# name -> size of the image, and what makes the file system
FILE_SYSTEMS = {
    "ext4": (16, ("mkfs.ext4", "-q", "-F")),
    "xfs": (300, ("mkfs.xfs", "-q")),
    "btrfs": (114, ("mkfs.btrfs", "-q")),
}


def make_image(path: Path, system: str, megabytes: int = 0) -> None:
    """megabytes: at least so large."""
    size, make = FILE_SYSTEMS[system]
    path.unlink(missing_ok=True)
    with path.open("wb") as stream:
        stream.truncate(max(size, megabytes) * 1024 * 1024)
    subprocess.run([*make, path], check=True, capture_output=True)


def copy_image(source: Path, target: Path) -> None:
    target.unlink(missing_ok=True)  # a loop device lets go of an image only after a while
    subprocess.run(["cp", "--sparse=always", source, target], check=True)


@contextmanager
def mounted(image: Path, at: Path) -> Iterator[None]:
    # Several that look for a free loop device concurrently get in each other's way.
    _insist("mount", "-o", "loop", image, at)
    try:
        yield
    finally:
        _insist("umount", at)  # a worker of a killed process may still be ending


def _insist(*argv: str | Path) -> None:
    deadline = time.monotonic() + 20
    while (done := subprocess.run(argv, capture_output=True, check=False)).returncode:
        assert time.monotonic() < deadline, (argv, done.stderr)
        time.sleep(0.05)
