"""`bundler.refresh.dbt_projects`: what dbt wrote about the place where it parsed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bundler.refresh import dbt_projects, scanning
from bundler.refresh.dbt_projects import relocate


def _parsed(folder: Path) -> Path:
    target = folder / "project" / "orders" / "target"
    target.mkdir(parents=True)
    return target


def test_json_says_here_and_msgpack_keeps_its_lengths(tmp_path: Path) -> None:
    folder = tmp_path / "ein Ort \N{SNOWMAN}"
    target = _parsed(folder)
    project = str(target.parent)
    said = {"root_path": project, "file": f"{project}/seeds/a.csv", "else": f"{project}2"}
    for name, ascii_only in (("manifest.json", True), ("semantic_manifest.json", False)):
        (target / name).write_text(json.dumps(said, ensure_ascii=ascii_only))
    packed = b"\xd9" + bytes([len(project.encode())]) + project.encode() + b"\x01"
    (target / "partial_parse.msgpack").write_bytes(packed)
    relocate(folder)
    for name in ("manifest.json", "semantic_manifest.json"):
        now = json.loads((target / name).read_text())
        assert now == {"root_path": ".", "file": "./seeds/a.csv", "else": f"{project}2"}
    now_packed = (target / "partial_parse.msgpack").read_bytes()
    assert len(now_packed) == len(packed)
    here = now_packed[2:-1].decode()
    assert (tmp_path / here).resolve() == tmp_path
    assert sorted(path.name for path in target.iterdir()) == [
        "manifest.json", "partial_parse.msgpack", "semantic_manifest.json",
    ]  # fmt: skip


@pytest.mark.parametrize("chunk", [1, 7, 64])
def test_a_path_across_two_pieces_is_found(
    chunk: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (dbt_projects, scanning):
        monkeypatch.setattr(module, "_CHUNK_BYTES", chunk)
    target = _parsed(tmp_path)
    manifest = target / "manifest.json"
    project = str(target.parent)
    manifest.write_text(json.dumps([project, "x" * 100, f"{project}/a", project]))
    relocate(tmp_path)
    assert json.loads(manifest.read_text()) == [".", "x" * 100, "./a", "."]


def test_other_json_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "state").write_text(json.dumps(str(tmp_path)))
    (tmp_path / "other.json").write_text(json.dumps(str(tmp_path)))
    relocate(tmp_path)
    assert json.loads((tmp_path / "other.json").read_text()) == str(tmp_path)
