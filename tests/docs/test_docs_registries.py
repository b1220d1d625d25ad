"""Runs every command of docs/how-to/registries.md, unchanged and in order, against a registry."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from bundler.artifacts.image.layout import LayoutFolder, write_archive
from tests.registry.test_ci_templates import Ci
from tests.support import registries
from tests.support.environments import ROOT
from tests.support.layouts import LayoutMaker, code_layer
from tests.support.pushing import config, make_key, push

_PAGE = ROOT / "docs/how-to/registries.md"


def commands() -> list[str]:
    blocks = re.findall(r"```console\n(.*?)```", _PAGE.read_text(), re.DOTALL)
    return [line[2:] for block in blocks for line in block.splitlines() if line.startswith("$ ")]


def test_every_command_runs(tmp_path: Path) -> None:
    with registries.running() as registry:
        ci = Ci(tmp_path, registry)
        ci.wd.write(".gitignore", ".local_defs_state/\n/build/\n")
        ci.wd("git commit -qam ignore")
        digests = {}
        for name in ("amd64", "arm64"):
            maker = LayoutMaker(tmp_path / name)
            maker.tag(maker.manifest([code_layer()], config(), architecture=name))
            digests[name.upper()] = push(maker, f"{ci.image}:{name}")
        push(maker, f"{registry.host}/acme/shop-eu:2.0")
        build = ci.wd.path / "build"
        build.mkdir()
        write_archive(LayoutFolder(ci.maker.path).path, build / "code.tar")
        subprocess.run(["cp", "-r", ci.maker.path, build / "code"], check=True)
        make_key(build / "key")
        (build / "key.allowed").rename(build / "allowed_signers")
        host = registry.host
        names = [f"docker://{host}/acme/shop:{tag}" for tag in ("1.4", "1.4-staging")]
        (build / "images").write_text("\n".join(names))
        found = commands()
        assert len(found) > 12
        shown = {}
        for command in found:
            mine = command.replace("ghcr.io", host)
            differs = 1 if " diff " in command else 0
            state = "2" if "--environment staging" in command else "1"
            variables = {**digests, "DIGEST": digests["AMD64"], "STATE": state}
            shown[command] = ci.sh(mine, differs, **variables)

        assert '"changed": false' in shown[found[2]]
        fleet = shown["cat build/images | state-bundler status -"]
        assert fleet.count("Catalogue") == 2
        tags = {tag for _, tag in registry.tags}
        assert {"1.4", "1.4-staging"} < tags
        assert any(re.fullmatch(r"1\.4-prod-s[0-9a-f]{12}", tag) for tag in tags)
