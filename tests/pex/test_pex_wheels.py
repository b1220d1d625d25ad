"""State in the distributions of a PEX, in every layout. About a minute."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bundler.artifacts.python.pex.file import PexArtifact
from bundler.artifacts.verify import verify
from bundler.errors import ConfigurationError, VerificationFailed
from bundler.state.artifact import LABEL_CODE, LABEL_RUN_RECORD, LABEL_STATES
from tests.support.embedding import embed_pex
from tests.support.pex_projects import (
    PLACE,
    RECORD,
    bundle_of,
    output_of,
    package,
    run_pex,
    set_state,
    state_files,
    wheel,
    write,
)

LAYOUTS = [
    ["--layout", "zipapp"],
    ["--no-pre-install-wheels"],
    ["--layout", "packed"],
    ["--layout", "packed", "--no-pre-install-wheels"],
    ["--layout", "loose"],
    ["--layout", "loose", "--no-pre-install-wheels"],
]


@pytest.fixture(scope="session")
def pex_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("build-root")


def dist(made: Path) -> tuple[str | Path, ...]:
    """pex's arguments to take a wheel without a resolve by pip, which takes seconds."""
    return "--pre-resolved-dists", made.parent, "shop"


def contents(path: Path) -> dict[str, tuple[int, str]]:
    """Every file's mode and digest; of a PEX that is one file or a folder.

    What Python compiled into a folder when it ran is left out.
    """
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    return {
        str(p.relative_to(path)): (p.stat().st_mode, hashlib.sha256(p.read_bytes()).hexdigest())
        for p in files
        if p.suffix != ".pyc"
    }


@pytest.mark.parametrize("options", LAYOUTS, ids=" ".join)
def test_every_layout_becomes_what_pex_makes_of_a_wheel_with_the_state(
    options: list[str], tmp_path: Path, pex_root: Path
) -> None:
    build = ["-m", "shop", *options]
    old = wheel(tmp_path / "old", {f"{PLACE}/A/state": "old", f"{PLACE}/Gone/state": "x"})
    run_pex(*dist(old), *build, "-o", "app.pex", cwd=tmp_path, root=pex_root)
    assert output_of(tmp_path / "app.pex", tmp_path / "root") == "A=old Gone=x"
    mode = (tmp_path / "app.pex").stat().st_mode

    bundle = bundle_of(set_state(tmp_path / "state", A="new", Bb="more"))
    embed_pex(tmp_path / "app.pex", [bundle], RECORD, tmp_path / "app.pex")
    assert output_of(tmp_path / "app.pex", tmp_path / "root") == "A=new Bb=more"
    assert (tmp_path / "app.pex").stat().st_mode == mode
    with PexArtifact(tmp_path / "app.pex") as artifact:
        assert verify(artifact).all_problems == ()
        properties = artifact.info.build_properties
    if "--no-pre-install-wheels" in options:
        # The wheel in it is packed by its builder: the result is that of a rebuild with us.
        run_pex(*dist(wheel(tmp_path / "plain")), *build, "-o", "b", cwd=tmp_path, root=pex_root)
        embed_pex(tmp_path / "b", [bundle], RECORD, tmp_path / "b")
        assert contents(tmp_path / "app.pex") == contents(tmp_path / "b")
        return

    labels = [
        argument
        for name in (LABEL_CODE, LABEL_STATES, LABEL_RUN_RECORD)
        for argument in ("--build-property", f"{name}={json.dumps(properties[name])}")
    ]
    new = wheel(tmp_path / "new", state_files(bundle))
    run_pex(*dist(new), *build, *labels, "-o", "theirs.pex", cwd=tmp_path, root=pex_root)
    assert contents(tmp_path / "app.pex") == contents(tmp_path / "theirs.pex")


@pytest.mark.parametrize("layout", ["packed", "loose"])
def test_code_in_a_folder_becomes_what_pex_makes_of_it_with_the_state(
    layout: str, tmp_path: Path, pex_root: Path
) -> None:
    source = package(tmp_path / "src", A="old", Gone="x")
    build = ["-D", "src", "-m", "shop", "--layout", layout]
    run_pex(*build, "-o", "app", cwd=tmp_path, root=pex_root)
    bundle = bundle_of(set_state(tmp_path / "state", A="new", Bb="more"))
    embed_pex(tmp_path / "app", [bundle], RECORD, tmp_path / "app")
    with PexArtifact(tmp_path / "app") as artifact:
        properties = artifact.info.build_properties
    set_state(source / PLACE)
    write(source, state_files(bundle))
    labels = [
        argument
        for name in (LABEL_CODE, LABEL_STATES, LABEL_RUN_RECORD)
        for argument in ("--build-property", f"{name}={json.dumps(properties[name])}")
    ]
    run_pex(*build, *labels, "-o", "theirs", cwd=tmp_path, root=pex_root)
    assert contents(tmp_path / "app") == contents(tmp_path / "theirs")


def test_a_pylock_brings_the_package(tmp_path: Path, pex_root: Path) -> None:
    made = wheel(tmp_path / "w", {f"{PLACE}/A/state": "old"})
    digest = hashlib.sha256(made.read_bytes()).hexdigest()
    (tmp_path / "pylock.toml").write_text(
        'lock-version = "1.0"\ncreated-by = "hand"\n[[packages]]\nname = "shop"\n'
        'version = "1.0"\n[[packages.wheels]]\n'
        f'name = "{made.name}"\npath = "w/{made.name}"\nhashes = {{ sha256 = "{digest}" }}\n'
    )
    build = ["--pylock", "pylock.toml", "-m", "shop"]
    run_pex(*build, "-o", "app.pex", cwd=tmp_path, root=pex_root)
    bundle = bundle_of(set_state(tmp_path / "state", A="new"))
    embed_pex(tmp_path / "app.pex", [bundle], RECORD, tmp_path / "app.pex")
    assert output_of(tmp_path / "app.pex", tmp_path / "root") == "A=new"


def test_an_installed_venv_and_a_repackaged_wheel_have_the_state(
    tmp_path: Path, pex_root: Path
) -> None:
    """pex's own tools agree with RECORD and with the list of the wheel's entries."""
    old = wheel(tmp_path / "old")
    tools = ["-m", "shop", "--venv", "--include-tools"]
    run_pex(*dist(old), *tools, "-o", "app.pex", cwd=tmp_path, root=pex_root)
    bundle = bundle_of(set_state(tmp_path / "state", A="new"))
    embed_pex(tmp_path / "app.pex", [bundle], RECORD, tmp_path / "app.pex")
    environ = {**os.environ, "PEX_ROOT": str(tmp_path / "root"), "PEX_TOOLS": "1"}
    for command in (["venv", "made"], ["repository", "extract", "-f", "wheels"]):
        subprocess.run([sys.executable, "app.pex", *command], cwd=tmp_path, env=environ, check=True)
    done = subprocess.run(
        [tmp_path / "made" / "bin" / "python", "-m", "shop"], check=True, capture_output=True
    )
    assert done.stdout.decode().strip() == "A=new"
    expected = wheel(tmp_path / "new", state_files(bundle))
    assert (tmp_path / "wheels" / old.name).read_bytes() == expected.read_bytes()


def test_updating_in_place_does_not_touch_what_pex_linked_to(
    tmp_path: Path, pex_root: Path
) -> None:
    source = package(tmp_path / "src", A="old")
    run_pex(
        "-D", "src", "-m", "shop", "--layout", "packed", "-o", "app", cwd=tmp_path, root=pex_root
    )
    embed_pex(
        tmp_path / "app", [bundle_of(set_state(tmp_path / "s", A="new"))], RECORD, tmp_path / "app"
    )
    assert (source / PLACE / "A" / "state").read_text() == "old"
    (source / "shop" / "__init__.py").write_text("raise SystemExit('changed later')")
    assert output_of(tmp_path / "app", tmp_path / "root") == "A=new"


def test_a_package_that_is_there_twice_is_refused(tmp_path: Path, pex_root: Path) -> None:
    package(tmp_path / "src")
    made = wheel(tmp_path / "w")
    run_pex(*dist(made), "-D", "src", "-o", "app.pex", cwd=tmp_path, root=pex_root)
    bundle = bundle_of(set_state(tmp_path / "state", A="1"))
    with pytest.raises(ConfigurationError, match=r"more than once: shop/defs and \.deps/shop-1\.0"):
        embed_pex(tmp_path / "app.pex", [bundle], RECORD, tmp_path / "b.pex")


def test_a_distribution_that_was_changed_is_refused(tmp_path: Path, pex_root: Path) -> None:
    made = wheel(tmp_path / "w")
    run_pex(*dist(made), "--layout", "loose", "-o", "app", cwd=tmp_path, root=pex_root)
    path = tmp_path / "app" / ".deps" / made.name / "shop" / "__init__.py"
    path.write_text("changed = True")
    bundle = bundle_of(set_state(tmp_path / "state", A="1"))
    with pytest.raises(VerificationFailed, match="fingerprint"):
        embed_pex(tmp_path / "app", [bundle], RECORD, tmp_path / "app")
