"""PEX files in which something else would be imported or run than is read.

Each is refused by `verify`; and what `verify` accepts is what the PEX finds when it runs.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from bundler.artifacts.python.pex.arguments import parse
from bundler.artifacts.python.pex.info import PexInfo, code_hash, is_user_file
from bundler.artifacts.python.pex.wheels import fingerprint_of
from bundler.errors import UsageError
from tests.support.deceptions import Entries, accepts, entries_of, pythons, write
from tests.support.embedding import embed_pex
from tests.support.pex_projects import (
    PLACE,
    RECORD,
    bundle_of,
    output_of,
    package,
    run_pex,
    set_state,
    wheel,
)

_STATE = f"{PLACE}/A/state"
_RECORD = "shop-1.0.dist-info/RECORD"


_DIST = ".deps/shop-1.0-py3-none-any.whl"
_SOURCES, _WHEEL = ["-D", "src"], ["wheels/shop-1.0-py3-none-any.whl"]
_BUILDS = {
    ("sources", "zipapp"): _SOURCES,
    ("sources", "packed"): _SOURCES,
    ("sources", "loose"): _SOURCES,
    ("a wheel", "zipapp"): _WHEEL,
    ("a wheel", "packed"): _WHEEL,
    ("a wheel as it is", "zipapp"): [*_WHEEL, "--no-pre-install-wheels"],
}


@pytest.fixture(scope="module")
def pexes_by_name(tmp_path_factory: pytest.TempPathFactory) -> Mapping[tuple[str, str], Path]:
    """A PEX of each layout, of sources and of a wheel, with the state in it."""
    folder = tmp_path_factory.mktemp("pex")
    package(folder / "src")
    wheel(folder / "wheels")
    bundle = bundle_of(set_state(folder / "state", A="1"))
    made = {}
    for (build, layout), arguments in _BUILDS.items():
        path = folder / f"{build} {layout}".replace(" ", "-")
        more = ("--layout", layout, "-m", "shop", "-o", path)
        run_pex(*arguments, *more, cwd=folder, root=folder / "root")
        embed_pex(path, [bundle], RECORD, path)
        made[build, layout] = path
    return made


@pytest.mark.parametrize(("build", "layout"), _BUILDS)
def test_what_was_embedded_is_accepted_and_runs(
    build: str, layout: str, pexes_by_name: Mapping[tuple[str, str], Path], tmp_path: Path
) -> None:
    path = pexes_by_name[build, layout]
    assert accepts(path)
    assert output_of(path, tmp_path / "root") == "A=1"
    assert accepts(path) or layout == "loose"  # what Python compiles there is code, too


def test_every_python_runs_it_with_the_state_that_was_read(
    pexes_by_name: Mapping[tuple[str, str], Path], tmp_path: Path
) -> None:
    for number, python in enumerate(pythons()):
        environ = {**os.environ, "PEX_ROOT": str(tmp_path / str(number))}
        command = [python, pexes_by_name["a wheel", "zipapp"]]
        done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
        assert done.stdout == "A=1\n", (python, done.stderr)


def _compact(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _sealed(entries: Entries, **values: object) -> Entries:
    """The entries with the hashes that belong to them, as somebody would compute them anew."""
    old = PexInfo.parse(entries["PEX-INFO"], "")
    user = {
        name: (lambda data=data: io.BytesIO(data))
        for name, data in entries.items()
        if is_user_file(name) and not name.endswith("/")
    }
    distributions = {**old.distributions}
    changed = {**entries}
    for name in old.distributions:
        start = f".deps/{name}/"
        files = {
            path.removeprefix(start): data
            for path, data in entries.items()
            if path.startswith(start) and not path.endswith("/")
        }
        if ".layout.json" in files:
            opened = {path: (lambda data=data: io.BytesIO(data)) for path, data in files.items()}
            fingerprint = distributions[name] = fingerprint_of(opened)
            layout = {**json.loads(files[".layout.json"]), "fingerprint": fingerprint}
            changed[f"{start}.layout.json"] = _compact(layout)
    distributions.update(values.pop("distributions", {}))  # type: ignore[call-overload]
    new = old.with_values(code_hash=code_hash(user), distributions=distributions, **values)
    for name in ("__main__.py", "__pex__/__init__.py"):
        changed[name] = entries[name].replace(old.pex_hash.encode(), new.pex_hash.encode())
    return {**changed, "PEX-INFO": new.dump()}


_OTHER_DIST = ".deps/evil-1.0-py3-none-any.whl"


def _with(**files: bytes) -> Callable[[Entries], Entries]:
    return lambda entries: _sealed({**entries, **files})


def _with_distribution(**files: bytes) -> Callable[[Entries], Entries]:
    """Another distribution with these files, known to PEX-INFO."""

    def change(entries: Entries) -> Entries:
        inside = {f"{_OTHER_DIST}/{name}": data for name, data in files.items()}
        inside[f"{_OTHER_DIST}/.layout.json"] = b"{}"
        named = {_OTHER_DIST.removeprefix(".deps/"): "0" * 64}
        return _sealed({**entries, **inside}, distributions=named)

    return change


def _newer(entries: Entries) -> Entries:
    """Another state, as `zip -u` and a new label would put it there: all but pex's hashes."""
    place = next(name for name in entries if name.endswith("A/state")).removesuffix("/A/state")
    with tempfile.TemporaryDirectory() as folder:
        bundle = bundle_of(set_state(Path(folder, "s"), A="2"))
        files = {f"{place}/{m.path}": m.open().read() for m in bundle.members()}
    info = json.loads(entries["PEX-INFO"])
    claims = [{"contentDigest": bundle.manifest.content_digest, "manifest": bundle.manifest.sha256,
               "path": place}]  # fmt: skip
    properties = info["build_properties"]
    properties["io.state-bundler.states"] = json.dumps(
        claims, sort_keys=True, separators=(",", ":")
    )
    text = json.dumps(info, sort_keys=True, separators=(",", ":"))
    return {**entries, **files, "PEX-INFO": text.encode()}


_INIT = {"shop/__init__.py": b""}
PEX_FILES: dict[str, tuple[str, Callable[[Entries], Entries]]] = {
    "newer state under older hashes": ("sources", _newer),
    "newer state in a wheel under older hashes": ("a wheel", _newer),
    "newer state under an older fingerprint": ("a wheel", lambda it: {
        **_sealed(_newer(it)), f"{_DIST}/.layout.json": it[f"{_DIST}/.layout.json"]}),
    "other code under older hashes": ("sources", lambda it: {**it, "shop/__init__.py": b"evil"}),
    "boot code with another hash": ("sources", lambda it: {**it, "__main__.py": b"0" * 40}),
    "an invalid prefix": ("sources", dict),
    "another PEX before its own code": ("sources", lambda it: _sealed(it, pex_path="/evil.pex")),
    "other PEX files before it": ("sources", lambda it: _sealed(it, pex_paths=["/evil.pex"])),
    "the machine's packages before it": ("sources", lambda it: _sealed(it, inherit_path="prefer")),
    "another copy of the package": ("a wheel", _with(**{"shop/defs/__init__.py": b""})),
    "another copy in a distribution": (
        "sources", _with_distribution(**{"shop/defs/__init__.py": b""})),
    "a package above it": ("a wheel", _with(**_INIT)),
    "a package above it in a distribution": ("sources", _with_distribution(**_INIT)),
    "a module in its place": ("a wheel", _with(**{"shop.py": b""})),
    "a compiled module in its place": ("a wheel", _with(**{"shop.cpython-311-x86_64.so": b""})),
    "byte code in its place": ("a wheel", _with(**{"shop.pyc": b""})),
    "a module in the place of defs": ("a wheel", _with(**{"shop/defs.py": b""})),
    "a second state directory": ("sources", _with(**{f"other/{PLACE}/A/state": b"1"})),
    "one that differs by case": ("sources", _with(**{"shop/defs/.Local_Defs_State/A/state": b"1"})),
    "a prefix over a state": (
        "a wheel", _with(**{f"{_DIST}/.prefix/lib/python3.11/site-packages/{_STATE}": b"2"})),
    "data over a state of another": (
        "a wheel", _with_distribution(**{f"evil-1.0.data/purelib/{_STATE}": b"2"})),
    "an empty folder in the state directory": ("sources", lambda it: {**it, f"{PLACE}/Old/": b""}),
}  # fmt: skip


@pytest.mark.parametrize("case", PEX_FILES)
def test_a_pex_that_runs_something_else_is_refused(
    case: str, pexes_by_name: Mapping[tuple[str, str], Path], tmp_path: Path
) -> None:
    build, change = PEX_FILES[case]
    before = entries_of(pexes_by_name[build, "zipapp"])
    start = b"#!/usr/bin/env python3\n"
    path = tmp_path / "app.pex"
    path.write_bytes(start + write(tmp_path / "x", before).read_bytes())
    _relocate(path, len(start))
    assert accepts(path)
    assert accepts(write(path, _sealed(before)))
    after = change(before)
    path.write_bytes(b"junk" if case == "an invalid prefix" else b"")
    with zipfile.ZipFile(path, "a") as file:
        for name, data in after.items():
            file.writestr(name, data)
    assert not accepts(path)


def _relocate(path: Path, by: int) -> None:
    """Makes the offsets of a zip file right again, behind a prefix."""
    raw = bytearray(path.read_bytes())
    end = raw.rindex(b"PK\x05\x06")
    directory = struct.unpack("<L", raw[end + 16 : end + 20])[0] + by
    raw[end + 16 : end + 20] = struct.pack("<L", directory)
    while directory < end:
        offset = struct.unpack("<L", raw[directory + 42 : directory + 46])[0] + by
        raw[directory + 42 : directory + 46] = struct.pack("<L", offset)
        directory += 46 + sum(struct.unpack("<3H", raw[directory + 28 : directory + 34]))
    path.write_bytes(raw)


def test_packages_of_several_distributions_may_share_a_namespace(
    pexes_by_name: Mapping[tuple[str, str], Path], tmp_path: Path
) -> None:
    entries = entries_of(pexes_by_name["a wheel", "zipapp"])
    namespace = b"__path__ = __import__('pkgutil').extend_path(__path__, __name__)\n"
    for files in ({"shop/other/x.py": b""}, {"shop/__init__.py": namespace}, {"shopping.py": b""}):
        assert accepts(write(tmp_path / "app.pex", _with_distribution(**files)(entries)))


FOLDERS: dict[str, Callable[[Path, Path], object]] = {
    "a link to a folder among the code": lambda pex, evil: (pex / "extra").symlink_to(evil),
    "a link to a folder in a package": lambda pex, evil: (pex / "shop/extra").symlink_to(evil),
    "a link to a folder in the state": lambda pex, evil: (pex / PLACE / "extra").symlink_to(evil),
    "a link to a file": lambda pex, evil: (pex / "extra.py").symlink_to(evil / "evil.py"),
    "a link to a folder of distributions": lambda pex, evil: (pex / ".deps").symlink_to(evil),
    "a link in the boot code": lambda pex, evil: (pex / "__pex__/extra").symlink_to(evil),
    "a link of pex's that leads elsewhere": lambda pex, evil: (
        (pex / "pex").unlink(), (pex / "pex").symlink_to(evil / "evil.py")),
    "a FIFO": lambda pex, _: os.mkfifo(pex / "extra"),
    "a name of two lines": lambda pex, _: (pex / "a\nb.py").touch(),
    "an unreadable state": lambda pex, _: (pex / _STATE).chmod(0),
    "a setuid state": lambda pex, _: (pex / _STATE).chmod(0o4644),
    "an empty folder in the state directory": lambda pex, _: (pex / PLACE / "Old").mkdir(),
}  # fmt: skip


@pytest.mark.parametrize("layout", ["packed", "loose"])
@pytest.mark.parametrize("case", FOLDERS)
def test_a_folder_that_imports_from_elsewhere_is_refused(
    case: str, layout: str, pexes_by_name: Mapping[tuple[str, str], Path], tmp_path: Path
) -> None:
    path = tmp_path / "app"
    shutil.copytree(pexes_by_name["sources", layout], path, symlinks=True)
    assert accepts(path)
    (tmp_path / "evil").mkdir()
    (tmp_path / "evil" / "evil.py").touch()
    FOLDERS[case](path, tmp_path / "evil")
    assert not accepts(path)


def test_a_pex_that_was_installed_is_read_as_a_directory(
    pexes_by_name: Mapping[tuple[str, str], Path], tmp_path: Path
) -> None:
    """With the byte code that pex compiles on request."""
    venv = tmp_path / "app"
    command = [Path(sys.executable).parent / "pex-tools", pexes_by_name["a wheel", "zipapp"]]
    environ = {**os.environ, "PEX_ROOT": str(tmp_path / "root")}
    subprocess.run([*command, "venv", "--compile", venv], check=True, env=environ)
    assert accepts(venv)
    (state,) = venv.glob(f"lib/*/site-packages/{_STATE}")
    state.write_text("2")
    assert not accepts(venv)


@pytest.mark.parametrize(
    "argument",
    ["--pex-path=x.pex", "--pex-path", "--inherit-path=prefer", "--inherit-path", "--inh=prefer"],
)
def test_what_verify_would_refuse_is_refused_before_the_build(argument: str) -> None:
    with pytest.raises(UsageError, match="another copy"):
        parse(["-o", "app.pex", argument, "x.pex"])
    parse(["-o", "app.pex", "--inherit-path=fallback", "--pex-root", "x"])
