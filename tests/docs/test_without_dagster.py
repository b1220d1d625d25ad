"""Runs the guide for programs without Dagster as it is written: files, commands, output."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.test_tutorial import BLOCK, Tutorial
from tests.support.engine import Engine, make_python_base
from tests.support.environments import ROOT

pytestmark = pytest.mark.engine


def test_the_guide_does_what_it_says(tmp_path: Path, engine: Engine) -> None:
    make_python_base(engine)
    reader = Tutorial(tmp_path, engine)
    reader.env |= {"PEX_ROOT": str(tmp_path / "pex"), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    page = (ROOT / "docs/how-to/without-dagster.md").read_text()
    try:
        for language, title, text in BLOCK.findall(page):
            if title == "server":
                reader.start()
            elif language == "console":
                reader.console(text)
            elif title:
                reader.write(title, text)
    finally:
        reader.stop()
        engine.docker("image", "rm", "--force", "shop:1.0", check=False)
