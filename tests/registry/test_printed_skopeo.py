"""The command that lists an image's tags, pasted as it is printed."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

from tests.support.engine import install
from tests.support.layouts import LayoutMaker
from tests.support.pushing import alone, push_base  # noqa: F401  # a fixture for all
from tests.support.registries import distribution
from tests.support.workdir import WorkDir


def test_an_image_that_the_registry_does_not_have(maker: LayoutMaker, wd: WorkDir) -> None:
    install("skopeo")
    program = Path(sys.executable).with_name("state-bundler")
    with distribution() as host:
        push_base(maker, f"{host}/acme/shop:1")
        refused = wd.run([program, "verify", f"docker://{host}/acme/shop:2"])
        assert refused.returncode == 2
        (fix,) = re.findall(r"List its tags: (.*)", refused.stderr.decode())
        # skopeo talks to a registry without TLS only if its configuration says so.
        settings = Path(wd.env["HOME"], ".config/containers/registries.conf")
        settings.parent.mkdir(parents=True)
        settings.write_text(f'[[registry]]\nlocation = "{host}"\ninsecure = true\n')
        assert json.loads(wd(["sh", "-c", fix]))["Tags"] == ["1"]
