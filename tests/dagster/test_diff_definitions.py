"""``diff A B --definitions``: state directories with the code here, PEX files in themselves.

About 20 s. Images: `tests.engine.test_definitions_in_images`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from bundler.cli.commands import cli
from bundler.cli.run import run
from bundler.state.statedir import StateDir
from tests.support.embedding import embed_pex
from tests.support.pex_projects import RECORD, run_pex
from tests.support.planned import AFTER, BEFORE, KEY, SMALL_PEX, make, python
from tests.support.statedirs import publish

pytestmark = pytest.mark.usefixtures("loads_once")
PLACE = "planned/defs/.local_defs_state"


def _published(directory: Path, state: Mapping[str, Any]) -> Path:
    publish(StateDir(directory / PLACE, PLACE), {KEY: {"state": json.dumps(state)}})
    return directory


def _diff(*arguments: str | Path) -> int:
    return run(cli, ["diff", *map(str, arguments), "--definitions"])


def test_states_alone_are_loaded_with_the_code_here(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = make(tmp_path)
    one, other = (
        _published(tmp_path / name, state) for name, state in (("one", BEFORE), ("other", AFTER))
    )
    here = ("--project", root, "--python", python())
    assert _diff(one, other, *here) == 1
    said = capsys.readouterr().out
    assert "assets\n  ~ orders\n      group: sales -> finance\n" in said
    assert "      tags: +tier=silver, -tier=gold\n" in said
    assert "  - returns\n" in said
    assert "  + visits\n" in said
    assert (
        "Definitions: 1 asset appears, 1 asset vanishes, 2 assets change, "
        "1 asset check appears, 1 asset check vanishes, "
    ) in said
    assert _diff(one, other, *here, "--format", "json") == 1
    found = json.loads(capsys.readouterr().out)
    assert found["keys"][0]["key"] == KEY
    changes = {(it["kind"], it["name"]): it["change"] for it in found["definitions"]["changes"]}
    assert changes["schedules", "weekly_schedule"] == "removed"
    assert _diff(one, other, *here, "--format", "markdown") == 1
    said = capsys.readouterr().out
    assert "<details><summary>assets (+1, -1, ~2)</summary>\n\n````diff\n" in said
    assert _diff(one, one, *here) == 0
    assert "Definitions: 12 unchanged." in capsys.readouterr().out


def test_without_code_there_is_nothing_to_load_with(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = _published(tmp_path / "one", BEFORE)
    (tmp_path / "nothing").mkdir()
    monkeypatch.chdir(tmp_path / "nothing")
    assert _diff(one, one) == 2
    assert "contains states and no code" in capsys.readouterr().err


def test_a_pex_is_loaded_in_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = make(tmp_path)
    (tmp_path / "dg.toml").write_text('[project]\nroot_module = "planned"\n')
    for name, state in (("one", BEFORE), ("other", AFTER)):
        source = tmp_path / f"{name}-src"
        (root / "src").rename(source) if name == "other" else _copy(root / "src", source)
        (source / "dg.toml").write_text('[project]\nroot_module = "planned"\n')
        if name == "other":  # other code, too
            _published(tmp_path / "other-state", state)
            text = (source / "planned/feed.py").read_text()
            (source / "planned/feed.py").write_text(text.replace("blocking=True", "blocking=False"))
        pex = tmp_path / f"{name}.pex"
        run_pex(*SMALL_PEX, "-D", source, "-o", pex, cwd=tmp_path, root=tmp_path / "root")
        bundle = StateDir(_published(tmp_path / f"{name}-state", state) / PLACE, PLACE).bundle()
        assert bundle is not None
        embed_pex(pex, [bundle], RECORD, pex)
    assert (
        _diff(tmp_path / "one.pex", tmp_path / "other.pex", "--project", root,
              "--python", python(), "--format", "json")
        == 1
    )  # fmt: skip
    found = json.loads(capsys.readouterr().out)["definitions"]
    changes = {(it["kind"], it["name"]): it for it in found["changes"]}
    assert changes["assets", "visits"]["change"] == "added"
    (field,) = changes["asset checks", "orders:fresh"]["fields"]
    assert (field["name"], field["before"], field["after"]) == ("blocking", True, False)


def _copy(source: Path, target: Path) -> None:
    import shutil

    shutil.copytree(source, target)
