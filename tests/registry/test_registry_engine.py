"""A real engine pushes an image, pulls it back with its state, and runs it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import registries
from tests.support.bundles import PLACE, make_bundle
from tests.support.engine import PYTHON_BASE, Engine
from tests.support.pushing import STATES, embed, verdict_of

pytestmark = pytest.mark.engine


def test_an_engine_runs_what_got_its_state_in_the_registry(engine: Engine, tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "state", STATES)
    context = tmp_path / "context"
    (context / "shop/defs").mkdir(parents=True)
    (context / "shop/defs/__init__.py").touch()
    (context / "Dockerfile").write_text(
        f"FROM {PYTHON_BASE}\nWORKDIR /app\nCOPY shop /app/shop\nUSER 1000\n"
    )
    with registries.distribution() as host:
        name = f"{host}/sbt/run"
        try:
            engine.docker("build", "-t", f"{name}:1", str(context))
            engine.docker("push", f"{name}:1")
            embed(f"{name}:2", bundle, f"{name}:1")
            assert verdict_of(f"{name}:2").all_problems == ()
            engine.docker("pull", f"{name}:2")
            state = f"/app/{PLACE}/Catalog__eu__/state"
            done = engine.docker("run", "--rm", "--network=none", f"{name}:2", "cat", state)
            assert done.stdout == STATES["Catalog[eu]"]["state"]
        finally:
            for tag in ("1", "2"):
                engine.docker("image", "rm", "--force", f"{name}:{tag}", check=False)
