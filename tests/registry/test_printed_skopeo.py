"""The command that lists an image's tags, pasted as it is printed."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

from tests.support.engine import install
from tests.support.layouts import LayoutMaker
from tests.support.pushing import alone, push_base  # noqa: F401  # a fixture for all
from tests.support.registries import Registry
from tests.support.workdir import WorkDir


def test_an_image_that_the_registry_does_not_have(
    ours: Registry, maker: LayoutMaker, wd: WorkDir
) -> None:
    install("skopeo")
    push_base(maker, f"{ours.host}/acme/shop:1")
    program = Path(sys.executable).with_name("state-bundler")
    refused = wd.run([program, "verify", f"docker://{ours.host}/acme/shop:2"])
    assert refused.returncode == 2
    (fix,) = re.findall(r"List its tags: (.*)", refused.stderr.decode())
    # skopeo talks to a registry without TLS only if its configuration says so.
    wd.write("registries.conf", f'[[registry]]\nlocation = "{ours.host}"\ninsecure = true\n')
    wd.env["CONTAINERS_REGISTRIES_CONF"] = str(wd.path / "registries.conf")
    assert json.loads(wd(["sh", "-c", fix]))["Tags"] == ["1"]
