"""A file that is no plan is an error, whatever is in it."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from bundler.errors import VerificationFailed
from bundler.workflows.plan_file import _read

_PLAN = b'{"contents": {}, "changes": [], "format": 2}'
_DEEP = b'{"format": 2, "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"


@pytest.mark.parametrize(
    ("plan", "states"),
    [
        (_DEEP, b""),
        (b"[" * 100_000, b""),
        (b"\xff", b""),
        (b"[]", b""),
        ("plan.json", b""),  # a link to itself
        (_PLAN, "states.tar"),
        (_PLAN, None),
    ],
)
def test_what_is_not_a_plan_is_refused(
    plan: bytes | str, states: bytes | str | None, tmp_path: Path
) -> None:
    path = tmp_path / "plan.bin"
    with tarfile.open(path, "w") as archive:
        for name, content in (("plan.json", plan), ("states.tar", states)):
            member = tarfile.TarInfo(name)
            if isinstance(content, str):
                member.type, member.linkname = tarfile.SYMTYPE, content
            elif content is not None:
                member.size = len(content)
            if content is not None:
                data = io.BytesIO(content) if isinstance(content, bytes) else None
                archive.addfile(member, data)
    with pytest.raises(VerificationFailed, match="is not a plan"):
        _read(path, tmp_path)
