"""Wheels, made by real backends or by hand, with state in them."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from bundler.artifacts.embedding import EmbedRequest
from bundler.artifacts.python.credentials import NOTHING, AllowedFiles, refuse
from bundler.artifacts.python.wheel import WheelArtifact
from bundler.artifacts.python.wheel.building import building, command
from bundler.artifacts.verify import verify
from bundler.errors import ConfigurationError, ToolFailed, UsageError, VerificationFailed
from bundler.listener import SILENT, Listener
from bundler.state.directory import DirectoryArtifact
from bundler.state.statedir import StateDir
from tests.support.embedding import embed_wheel
from tests.support.environments import python_of
from tests.support.pex_projects import (
    PLACE,
    RECORD,
    bundle_of,
    set_state,
    state_files,
    wheel,
    write,
)
from tests.support.statedirs import NOTHING_FETCHED
from tests.support.statedirs import publish as publish_state_directory


def record_of(path: Path) -> dict[str, tuple[str, str]]:
    with zipfile.ZipFile(path) as file:
        text = file.read("shop-1.0.dist-info/RECORD").decode()
    return {row[0]: (row[1], row[2]) for row in csv.reader(io.StringIO(text))}


def test_the_wheel_verifies_and_record_names_every_file(tmp_path: Path) -> None:
    made = wheel(tmp_path, {f"{PLACE}/Gone/state": "old"})
    bundle = bundle_of(set_state(tmp_path / "s", A="1"))
    embed_wheel(made, [bundle], RECORD, made)
    with WheelArtifact(made) as artifact:
        assert verify(artifact).all_problems == ()
        assert artifact.run_record() == RECORD
    listed = record_of(made)
    with zipfile.ZipFile(made) as file:
        names = file.namelist()
        assert names[-1] == "shop-1.0.dist-info/RECORD"
        assert set(names) == set(listed)
        for name in names[:-1]:
            data = file.read(name)
            digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=")
            assert listed[name] == (f"sha256={digest.decode()}", str(len(data)))
    assert f"{PLACE}/Gone/state" not in names


def test_the_same_inputs_give_the_same_wheel(tmp_path: Path) -> None:
    bundle = bundle_of(set_state(tmp_path / "s", A="1"))
    other = bundle_of(set_state(tmp_path / "t", A="2", B="3"))
    plain = wheel(tmp_path)
    embed_wheel(plain, [bundle], RECORD, tmp_path / "one.whl")
    embed_wheel(plain, [other], RECORD, tmp_path / "two.whl")
    embed_wheel(tmp_path / "two.whl", [bundle], RECORD, tmp_path / "two.whl")
    assert (tmp_path / "one.whl").read_bytes() == (tmp_path / "two.whl").read_bytes()


def test_pip_installs_it_and_its_files_are_those_of_the_bundle(tmp_path: Path) -> None:
    made = wheel(tmp_path)
    bundle = bundle_of(set_state(tmp_path / "s", A="1"))
    embed_wheel(made, [bundle], RECORD, made)
    target = tmp_path / "site"
    uv = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--target", target]
    subprocess.run([*uv, "--no-index", made], check=True)
    for path, data in state_files(bundle).items():
        assert (target / path).read_bytes() == data


@pytest.mark.parametrize(
    ("installer", "environ"),
    [
        (["pip", "install", "--no-deps", "--no-index"], {}),
        (["pip", "install", "--no-deps", "--no-index"], {"SOURCE_DATE_EPOCH": "1700000000"}),
        (["uv", "pip", "install", "--no-deps", "--no-index"], {"UV_COMPILE_BYTECODE": "1"}),
    ],
    ids=["pip", "pip, reproducibly", "uv"],
)
def test_byte_code_that_an_installer_compiles_is_accepted(
    installer: list[str], environ: dict[str, str], tmp_path: Path
) -> None:
    made = wheel(tmp_path)
    directory = StateDir(tmp_path / "state", PLACE)
    files = {"A": {"state": "1", "models/a.py": "x = 1\n", "models/b.py": "y = 2\n"}}
    embed_wheel(made, [publish_state_directory(directory, files).bundle], RECORD, made)
    site = tmp_path / "site"
    subprocess.run(
        [sys.executable, "-m", *installer, "--target", site, made],
        check=True, capture_output=True, env={**os.environ, **environ},
    )  # fmt: skip
    assert len(list((site / PLACE).rglob("*.pyc"))) == 3
    with DirectoryArtifact(site) as artifact:
        assert verify(artifact).all_problems == ()
    subprocess.run([sys.executable, "-O", site / PLACE / "@verify.py"], check=True)
    (site / PLACE / "A/models/__pycache__/c.cpython-311.pyc").write_bytes(b"")
    with DirectoryArtifact(site) as artifact:
        assert len(verify(artifact).all_problems) == 1


def test_a_wheel_with_credentials_is_refused(tmp_path: Path) -> None:
    pem = "-----BEGIN PRIVATE KEY-----\\n" + "A" * 1600
    key = '{"type": "service_account", "private_key": "' + pem + '"}'
    files = {"shop/.env": "TOKEN=x", "shop/ca.pem": "-----BEGIN CERTIFICATE-----"}
    made = wheel(tmp_path, {**files, "shop/acme-0123.json": key, "shop/.aws/config": "x"})
    found = r"w\.whl would contain credentials: shop/\.aws, shop/\.env, shop/acme-0123\.json\."
    with WheelArtifact(made) as artifact:
        with pytest.raises(ConfigurationError, match=found):
            refuse("w.whl", [artifact.tree], NOTHING, SILENT)
        refuse("w.whl", [artifact.tree], AllowedFiles(["shop/[.a]*"]), SILENT)


def test_a_file_that_may_be_a_key_is_a_warning(tmp_path: Path) -> None:
    made = wheel(tmp_path, {"shop/api.key": "t0ken", "shop/ca.pem": "-----BEGIN CERTIFICATE-----"})
    warnings: list[str] = []
    listener = Listener()
    listener.warning = warnings.append  # type: ignore[method-assign]
    with WheelArtifact(made) as artifact:
        refuse("w.whl", [artifact.tree], NOTHING, listener)
        refuse("w.whl", [artifact.tree], AllowedFiles(["shop/*.key"]), listener)
    (warning,) = warnings
    assert warning.startswith("w.whl contains files that may be private keys: shop/api.key. ")


def test_a_package_elsewhere_in_the_wheel_names_the_candidate(tmp_path: Path) -> None:
    made = wheel(tmp_path, {"src/other/defs/__init__.py": ""})
    bundle = bundle_of(set_state(tmp_path / "s", A="1"), "other/defs/.local_defs_state")
    with pytest.raises(ConfigurationError, match="src/other/defs") as raised:
        embed_wheel(made, [bundle], RECORD, made)
    assert "pex" not in str(raised.value.hint)
    assert f"cannot be imported from {made.name}," in raised.value.what


def test_a_package_that_is_imported_from_another_folder_gets_the_setting(tmp_path: Path) -> None:
    bundle = bundle_of(set_state(tmp_path / "s", A="1"), "lib/code/shop/state")
    made = wheel(tmp_path)
    with pytest.raises(ConfigurationError, match="lib cannot be imported") as raised:
        embed_wheel(made, [bundle], RECORD, made)
    assert 'set place = "shop/state"' in raised.value.hint


@pytest.mark.parametrize(
    ("files", "places", "expected"),
    [
        ({"shop/app.py": "x = 1"}, [PLACE], {}),
        ({"shop/app.py": "import dagster"}, [PLACE], {"shop/dg.toml": "shop"}),
        ({"shop/defs/a/defs.yaml": "type: dagster_dbt.X"}, [PLACE], {"shop/dg.toml": "shop"}),
        ({"shop/app.py": "dagster", "dg.toml": "root_module = 'shop'"}, [PLACE], {"dg.toml": ""}),
        (
            {"shop/app.py": "dagster", "dg.toml": "root_module = 'other'"},
            [PLACE],
            {"dg.toml": "", "shop/dg.toml": "shop"},
        ),
        (
            {"a/b/app.py": "dagster", "a/b/defs/x.py": ""},
            ["a/b/defs/.local_defs_state"],
            {"a/b/dg.toml": "a.b.defs"},
        ),
        (
            {"shop/app.py": "dagster", "till/__init__.py": "dagster", "till/defs/x.py": ""},
            [PLACE, "till/defs/.local_defs_state"],
            {"shop/dg.toml": "shop", "till/dg.toml": "till"},
        ),
        (
            {"shop/app.py": "dagster", "shop/feeds/x.py": ""},
            ["shop/feeds/.local_defs_state", PLACE],
            {"shop/dg.toml": "shop"},
        ),
    ],
)
def test_dagsters_configuration_is_in_the_package(
    files: dict[str, str | bytes], places: list[str], expected: dict[str, str], tmp_path: Path
) -> None:
    """Where no other wheel of the same environment replaces it."""
    made = wheel(tmp_path, files)
    bundles = [bundle_of(set_state(tmp_path / str(n), A="1"), at) for n, at in enumerate(places)]
    embed_wheel(made, bundles, RECORD, made)
    with zipfile.ZipFile(made) as file:
        names = [name for name in file.namelist() if name.endswith("dg.toml")]
        assert names == list(expected)
        for name in names:
            assert f'_module = "{expected[name]}"' in file.read(name).decode() or not expected[name]


@pytest.mark.parametrize(
    ("algorithm", "right"), [("sha512", True), ("sha384", True), ("sha1", False), ("md5", False)]
)
@pytest.mark.parametrize("altered", [False, True])
def test_record_may_have_any_hash_that_is_as_strong_as_sha256(
    algorithm: str, right: bool, altered: bool, tmp_path: Path
) -> None:
    embedded, made = wheel(tmp_path), tmp_path / "shop-1.0-py3-none-any.whl"
    embed_wheel(embedded, [bundle_of(set_state(tmp_path / "s", A="1"))], RECORD, embedded)
    lines = io.StringIO()
    with zipfile.ZipFile(embedded) as source:
        files = {name: source.read(name) for name in source.namelist()}
    *names, record = files
    for name in names:
        digest = hashlib.new(algorithm, files[name] + b"x" * altered).digest()
        value = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        csv.writer(lines).writerow([name, f"{algorithm}={value}", len(files[name])])
    files[record] = f"{lines.getvalue()}{record},,\n".encode()
    with zipfile.ZipFile(made, "w") as target:
        for name, data in files.items():
            target.writestr(name, data)
    with WheelArtifact(made) as artifact:
        assert (verify(artifact).all_problems == ()) is (right and not altered)


@pytest.mark.parametrize("place", ["shop/data/state", "shop/a/b/state"])
def test_a_folder_of_the_package_may_contain_only_the_state(place: str, tmp_path: Path) -> None:
    made = wheel(tmp_path)
    bundle = bundle_of(set_state(tmp_path / "s", A="1"), place)
    embed_wheel(made, [bundle], RECORD, made)
    with WheelArtifact(made) as artifact:
        assert verify(artifact).all_problems == ()
    for elsewhere in ("data/state", "src/shop/data/state", "shop/other/.local_defs_state"):
        with pytest.raises(ConfigurationError, match="cannot be imported"):
            embed_wheel(made, [bundle_of(bundle.root, elsewhere)], RECORD, made)


def test_another_copy_of_the_state_in_the_wheel_is_refused(tmp_path: Path) -> None:
    """A backend may be configured to include the state under a second name."""
    made = wheel(tmp_path, {"shop/frozen/.local_defs_state/@manifest.json": "{}"})
    with pytest.raises(VerificationFailed, match="not refreshed for it") as raised:
        embed_wheel(made, [bundle_of(set_state(tmp_path / "s", A="1"))], RECORD, made)
    assert "build backend" in str(raised.value.hint)


def test_a_signed_wheel_is_refused(tmp_path: Path) -> None:
    made = wheel(tmp_path, {"shop-1.0.dist-info/RECORD.jws": "{}"})
    with pytest.raises(UsageError, match="signed"):
        embed_wheel(made, [bundle_of(set_state(tmp_path / "s", A="1"))], RECORD, made)


def test_a_folder_named_build_is_not_a_build_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """setuptools makes one in the project."""
    venv.create(tmp_path / "venv", with_pip=False)
    (tmp_path / "build").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ToolFailed, match="No program can build a wheel"):
        command(tmp_path / "venv/bin/python", tmp_path, tmp_path)


def test_setuptools_packs_nothing_of_an_earlier_build(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whose components would ask for states that are not there."""
    table = (
        '[build-system]\nrequires = ["setuptools"]\nbuild-backend = "setuptools.build_meta"\n'
        '[project]\nname = "shop"\nversion = "1"\n[tool.setuptools]\npackages = ["shop"]\n'
    )
    write(tmp_path, {"pyproject.toml": table, "shop/a.py": "", "build/lib/shop/gone.py": ""})
    interpreter = python_of("backends")
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)
    monkeypatch.setenv("UV_NO_BUILD_ISOLATION", "1")
    monkeypatch.setenv("UV_PYTHON", str(interpreter))
    request = EmbedRequest((), RECORD)
    with building(tmp_path, interpreter, tmp_path / "dist", request) as (made, destination):
        files = [name for name in made.tree.leaves if name.startswith("shop/")]
    assert files == ["shop/a.py"]
    assert os.listdir(tmp_path / "dist") == [destination.name]
    assert not list((tmp_path / "build").glob("*wheel*"))


def test_what_is_not_a_wheel_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.whl", "w") as file:
        file.writestr("shop.py", "")
    with pytest.raises(VerificationFailed, match="not a wheel"):
        WheelArtifact(tmp_path / "x.whl")


# --- the hatchling hook -------------------------------------------------------------------------

PYPROJECT = """
[project]
name = "shop"
version = "1.0"
[build-system]
requires = ["hatchling", "state-bundler"]
build-backend = "hatchling.build"
[tool.hatch.build.targets.wheel]
packages = ["src/shop"]
[tool.hatch.build.hooks.state-bundler]
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A Dagster project whose state is ignored by git and published."""
    root = write(
        tmp_path / "project",
        {
            "pyproject.toml": PYPROJECT + '[tool.dg.project]\nroot_module = "shop"\n',
            ".gitignore": ".local_defs_state\n",
            "src/shop/__init__.py": "",
            "src/shop/defs/__init__.py": "",
        },
    )
    publish(root, "published")
    return root


def publish(root: Path, text: str) -> None:
    from bundler.state.manifest import state_of
    from bundler.state.tree import scan

    directory = StateDir(root / "src" / PLACE, PLACE)
    with directory.staging() as staging:
        key = staging.key_directory("A")
        (key / "state").write_text(text)
        staging.publish([state_of("A", "A", scan(key))], [], NOTHING_FETCHED)


def hatchling(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "hatchling", "build", *arguments]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)


def state_in(path: Path) -> str:
    with zipfile.ZipFile(path) as file:
        return file.read(f"{PLACE}/A/state").decode()


# Each makes an sdist first and the wheel of that, except pip, which takes the directory.
@pytest.mark.parametrize(
    "builder",
    [
        ["uv", "build", "--no-build-isolation", "--out-dir", "dist"],
        ["build", "--no-isolation", "--outdir", "dist"],
        ["pip", "wheel", "--no-build-isolation", "--no-deps", "--wheel-dir", "dist"],
    ],
    ids=lambda builder: builder[0],
)
def test_the_hook_embeds_the_state_for_every_front_end(
    builder: list[str], project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIRTUAL_ENV", sys.prefix)  # where uv finds the backend and the hook
    (project / "src" / PLACE / "Stale").mkdir()
    (project / "src" / PLACE / "Stale" / "state").touch()
    command = [sys.executable, "-m", *builder, "."]
    subprocess.run(command, cwd=project, check=True, capture_output=True)
    (made,) = (project / "dist").glob("*.whl")
    with WheelArtifact(made) as artifact:
        assert verify(artifact).all_problems == ()
        assert [found.path for found in artifact.state_directories()] == [PLACE]
    assert state_in(made) == "published"
    with zipfile.ZipFile(made) as file:
        assert not [name for name in file.namelist() if "Stale" in name]


def test_an_sdist_carries_the_state_and_a_wheel_of_it_is_the_same(
    project: Path, tmp_path: Path
) -> None:
    (project / "src" / PLACE / "Stale").mkdir()
    (project / "src" / PLACE / "Stale" / "state").touch()
    assert hatchling(project).returncode == 0
    made = project / "dist" / "shop-1.0-py2.py3-none-any.whl"
    subprocess.run(["tar", "xf", project / "dist" / "shop-1.0.tar.gz"], cwd=tmp_path, check=True)
    unpacked = tmp_path / "shop-1.0"
    assert not (unpacked / "src" / PLACE / "Stale").exists()
    assert hatchling(unpacked, "-t", "wheel").returncode == 0
    assert (unpacked / "dist" / made.name).read_bytes() == made.read_bytes()


def test_the_hook_finds_the_package_in_another_folder_than_src(project: Path) -> None:
    (project / "src").rename(project / "code")
    text = (project / "pyproject.toml").read_text()
    (project / "pyproject.toml").write_text(text.replace("src/shop", "code/shop"))
    done = hatchling(project)
    assert done.returncode == 0, done.stderr
    assert state_in(project / "dist" / "shop-1.0-py2.py3-none-any.whl") == "published"


def test_without_state_the_hook_warns_or_fails(project: Path) -> None:
    __import__("shutil").rmtree(project / "src" / PLACE)
    done = hatchling(project, "-t", "wheel")
    assert done.returncode == 0
    assert "ships without it" in done.stdout + done.stderr
    with (project / "pyproject.toml").open("a") as stream:
        stream.write("[tool.hatch.build.hooks.state-bundler]\nrequire = true\n")
    text = (project / "pyproject.toml").read_text()
    (project / "pyproject.toml").write_text(
        text.replace("[tool.hatch.build.hooks.state-bundler]\n", "", 1)
    )
    done = hatchling(project, "-t", "wheel")
    assert done.returncode == 1
    assert "state-bundler refresh" in done.stdout + done.stderr


def test_an_altered_state_fails_the_build_with_a_message(project: Path) -> None:
    (project / "src" / PLACE / "A" / "state").write_text("edited")
    done = hatchling(project, "-t", "wheel")
    assert done.returncode == 76
    assert "A/state does not match the manifest" in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert not list((project / "dist").glob("*.whl"))
