"""A project's published state in a PEX and in an image, and what its code location loads there.

The PEX and the image hold the project's own code; the libraries come from its environment. The
image is an OCI layout, unpacked by hand, so that neither an engine nor a registry takes part.
"""

from __future__ import annotations

import sysconfig
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bundler.artifacts import open as opening
from bundler.artifacts.verify import verify
from bundler.state.bundle import MANIFEST_NAME, Bundle
from bundler.state.statedir import StateDir
from tests.support import warm
from tests.support.embedding import embed_layout, embed_pex
from tests.support.integrations.running import loaded_assets
from tests.support.layouts import LayoutMaker, blob_of, directory, layer, read_image
from tests.support.pex_projects import RECORD, run_pex

_APP = "app"
_STATE = "warehouse/defs/.local_defs_state"


def published(root: Path, place: str = _STATE) -> Bundle:
    """What the last refresh has published in a project."""
    found = StateDir(root / place, place).read()
    assert found is not None, f"nothing is published below {root / place}"
    return Bundle(root / place, found.manifest, place)


def pex_of(root: Path, bundle: Bundle, folder: Path) -> Path:
    """A PEX of the project's code, with the state put into it and read back."""
    code = folder / "code"
    for name, content in _code_of(root, bundle).items():
        (code / name).parent.mkdir(parents=True, exist_ok=True)
        (code / name).write_bytes(content)
    pex = folder / "app.pex"
    run_pex("-D", code, "--venv", "-o", pex, cwd=folder, root=folder / "build-root")
    embed_pex(pex, [bundle], RECORD, pex)
    _verify(str(pex))
    return pex


def image_of(root: Path, bundle: Bundle, folder: Path) -> Path:
    """An image of the code with the state put onto it. Returns its ``/app``, unpacked."""
    base = LayoutMaker(folder / "base")
    entries: dict[str, Any] = {_APP: directory(0o755, 0, 0)}
    for name, content in _code_of(root, bundle).items():
        for parent in reversed(Path(name).parents):
            entries.setdefault(f"{_APP}/{parent}".removesuffix("/."), None)
        entries[f"{_APP}/{name}"] = content
    base.tag(base.manifest([layer(entries)], {"WorkingDir": f"/{_APP}"}))
    image = folder / "image"
    embed_layout(base.path, [bundle], RECORD, image)
    _verify(f"oci:{image}")
    return _unpacked(image, folder / "unpacked") / _APP


def assets_in_pex(pex: Path, python: Path, folder: Path, variables: Mapping[str, str]) -> set[str]:
    """What the code location in a PEX loads, with no network to reach."""
    packages = sysconfig.get_path("purelib", "posix_prefix", {"base": str(python.parent.parent)})
    settings = {
        "PEX_ROOT": str(folder / "pex-root"),
        "PEX_EXTRA_SYS_PATH": packages,
        "PEX_INTERPRETER": "1",
    }
    return loaded_assets([str(python), str(pex), "-"], folder, {**variables, **settings})


def assets_in_image(image: Path, python: Path, variables: Mapping[str, str]) -> set[str]:
    """What the code location in an unpacked image loads, with no network to reach."""
    return loaded_assets([str(warm.program(python)), "-"], image, variables)


def bytes_of(pex: Path, image: Path) -> bytes:
    """All that an artifact holds, to look for what must not be in it."""
    import zipfile

    with zipfile.ZipFile(pex) as archive:
        members = [archive.read(name) for name in archive.namelist()]
    files = [path.read_bytes() for path in image.rglob("*") if path.is_file()]
    return b"\n".join([*members, *files])


def _code_of(root: Path, bundle: Bundle) -> dict[str, bytes]:
    """The files of a project, without its state."""
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and bundle.root not in path.parents and "__pycache__" not in path.parts
    }


def _verify(name: str) -> None:
    with opening.open_artifact(name) as artifact:
        assert verify(artifact).all_problems == ()


def _unpacked(image: Path, into: Path) -> Path:
    manifest, _ = read_image(image, "latest")
    for entry in manifest["layers"]:
        with tarfile.open(blob_of(image, entry["digest"])) as archive:
            for member in archive:
                if not Path(member.name).name.startswith(".wh."):
                    archive.extract(member, into, filter="tar")
    assert list(into.rglob(MANIFEST_NAME))
    return into
