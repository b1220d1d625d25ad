"""Wheels and PEX files in which something else would be installed, imported or run than is read.

Each is refused by `verify`; and what `verify` accepts is what the real pip installs, what every
Python here reads, and what the PEX finds when it runs.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bundler.artifacts.open import open_artifact
from bundler.artifacts.python.pex.arguments import parse
from bundler.artifacts.python.pex.info import PexInfo, code_hash, is_user_file
from bundler.artifacts.python.pex.wheels import fingerprint_of
from bundler.artifacts.verify import verify
from bundler.errors import BundlerError, UsageError
from tests.support.embedding import embed_pex, embed_wheel
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
Entries = dict[str, bytes]


def accepts(path: Path) -> bool:
    """What `verify` says; every refusal is 76."""
    try:
        with open_artifact(str(path)) as artifact:
            return not verify(artifact).all_problems
    except BundlerError as error:
        if error.exit_code != 76:
            raise
        return False


def entries_of(path: Path) -> Entries:
    with zipfile.ZipFile(path) as file:
        return {info.filename: file.read(info) for info in file.infolist()}


def write(
    path: Path, entries: Mapping[str, bytes], attributes: Mapping[str, int] | None = None
) -> Path:
    """A zip file of these entries. attributes: kind and permission bits, for other than files."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in entries.items():
            info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            info.external_attr = (attributes or {}).get(name, 0o100644 << 16)
            info.compress_type = zipfile.ZIP_DEFLATED
            file.writestr(info, data)
    return path


def recorded(entries: Entries) -> Entries:
    """The entries with a RECORD that names them all."""
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    for name, data in entries.items():
        if name != _RECORD and not name.endswith("/"):
            digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
            lines.writerow([name, f"sha256={digest}", len(data)])
    lines.writerow([_RECORD, "", ""])
    return {**entries, _RECORD: text.getvalue().encode()}


# --- wheels -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def good_wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    made = wheel(folder)
    bundle = bundle_of(set_state(folder / "state", A="1", B="22"))
    embed_wheel(made, [bundle], RECORD, made)
    return made


def added(name: str, data: bytes = b"EVIL") -> Callable[[Entries], Entries]:
    return lambda entries: recorded({**entries, name: data})


def edited(name: str, change: Callable[[bytes], bytes]) -> Callable[[Entries], Entries]:
    return lambda entries: {**entries, name: change(entries[name])}


_SITE = "lib/python3.11/site-packages"
WHEELS: dict[str, Callable[[Entries], Entries]] = {
    "purelib over a state": added(f"shop-1.0.data/purelib/{_STATE}"),
    "platlib over a state": added(f"shop-1.0.data/platlib/{_STATE}"),
    "data over a state": added(f"shop-1.0.data/data/{_SITE}/{_STATE}"),
    "data over a state of Debian": added(f"shop-1.0.data/data/lib/python3/dist-packages/{_STATE}"),
    "data over a state with --target": added(f"shop-1.0.data/data/{_STATE}"),
    "data over a state by case": added("shop-1.0.data/purelib/Shop/defs/.local_defs_state/x"),
    "purelib over the manifest": added(f"shop-1.0.data/purelib/{PLACE}/@manifest.json"),
    "purelib beside a state": added(f"shop-1.0.data/purelib/{PLACE}/more"),
    "purelib over code": added("shop-1.0.data/purelib/shop/defs/__init__.py"),
    "purelib into the package": added("shop-1.0.data/purelib/shop/defs/more.py"),
    "a file for the state directory": added(f"shop-1.0.data/purelib/{PLACE}"),
    "a file for the package": added("shop-1.0.data/purelib/shop"),
    "another distribution's data": added(f"other-1.0.data/purelib/{_STATE}"),
    "a script called as a path": edited(
        "shop-1.0.dist-info/entry_points.txt",
        lambda raw: raw + f"../{_SITE}/{_STATE} = shop:main\n".encode(),
    ),
    "a file that RECORD does not name": lambda it: {**it, "shop/more.py": b""},
    "RECORD names what is not there": edited(_RECORD, lambda raw: raw + b"shop/gone.py,,\n"),
    "RECORD has another digest": edited(
        _RECORD, lambda raw: raw.replace(b"A/state,sha256=a4", b"A/state,sha256=b4")
    ),
    "RECORD has another size": edited(_RECORD, lambda raw: raw.replace(b",1\n", b",2\n", 1)),
    "RECORD names a file twice": edited(
        _RECORD, lambda raw: raw + raw.splitlines(keepends=True)[0]
    ),
    "another dist-info": added("other-1.0.dist-info/METADATA"),
    "the state directory in another case": added("shop/defs/.Local_Defs_State/A/state"),
    "the package in another case": added("SHOP/defs/.local_defs_state/A/state"),
    "a state directory elsewhere": added("other/.local_defs_state/A/state"),
    "an empty folder in the state directory": lambda it: {**it, f"{PLACE}/Old/": b""},
    "a folder called as the state": lambda it: {**it, f"{_STATE}/": b""},
    "a file called as the state directory": added(PLACE),
    "a file below a state": added(f"{_STATE}/more"),
    "a name with a backslash": added("shop\\defs\\x"),
    "a name that leads upwards": added("../x"),
    "an absolute name": added("/etc/x"),
}  # fmt: skip


@pytest.mark.parametrize("case", WHEELS)
def test_a_wheel_that_installs_something_else_is_refused(
    case: str, good_wheel: Path, tmp_path: Path
) -> None:
    before = entries_of(good_wheel)
    after = WHEELS[case](before)
    assert after != before
    assert accepts(write(tmp_path / good_wheel.name, recorded(before)))
    assert not accepts(write(tmp_path / good_wheel.name, after))


@pytest.mark.parametrize(
    "name",
    [
        "shop-1.0.data/data/share/doc/shop/README",
        "shop-1.0.data/data/etc/shop/defs/x",
        "shop-1.0.data/scripts/shop-tool",
        "shop-1.0.data/headers/shop.h",
        "shop-1.0.data/purelib/other/x.py",
        "shop/defs/deeper/.hidden",
    ],
)
def test_what_ordinary_wheels_hold_is_accepted(name: str, good_wheel: Path, tmp_path: Path) -> None:
    assert accepts(write(tmp_path / good_wheel.name, added(name)(entries_of(good_wheel))))


@pytest.mark.parametrize("bits", [0o120777, 0o100000, 0o104755, 0o102755, 0o020644, 0o010644])
def test_what_is_no_plain_file_is_refused(bits: int, good_wheel: Path, tmp_path: Path) -> None:
    path = write(tmp_path / good_wheel.name, recorded(entries_of(good_wheel)), {_STATE: bits << 16})
    assert not accepts(path)


# --- the zip file -------------------------------------------------------------------------------


def _patched(
    raw: bytes,
    name: bytes,
    *,
    central: bytes | None = None,
    local: bytes | None = None,
    extra: bytes = b"",
    local_extra: bytes = b"",
    flags: int = 0,
) -> bytes:
    """The zip with other names, flags or extra fields for one entry; all offsets are right."""
    at = raw.rindex(b"PK\x05\x06")
    directory, count = struct.unpack("<L", raw[at + 16 : at + 20])[0], raw[at + 10 : at + 12]
    body, records, position, growth = bytearray(raw[:directory]), bytearray(), directory, 0
    while position < at:
        fixed = bytearray(raw[position : position + 46])
        length, extras, _ = struct.unpack("<3H", fixed[28:34])
        found, old = (
            raw[position + 46 : position + 46 + length],
            raw[position + 46 + length :][:extras],
        )
        offset = struct.unpack("<L", fixed[42:46])[0] + growth
        fixed[42:46] = struct.pack("<L", offset)
        if found == name:
            header = bytearray(body[offset : offset + 30])
            new = local or name
            header[26:30] = struct.pack("<2H", len(new), len(local_extra))
            header[6:8] = fixed[8:10] = struct.pack(
                "<H", struct.unpack("<H", fixed[8:10])[0] | flags
            )
            body[offset : offset + 30 + length] = header + new + local_extra
            growth += len(new) + len(local_extra) - length
            found, old = central or name, extra
            fixed[28:32] = struct.pack("<2H", len(found), len(old))
        records += fixed + found + old
        position += 46 + length + extras
    end = struct.pack("<4s2H2s2s2LH", b"PK\x05\x06", 0, 0, count, count, len(records), len(body), 0)
    return bytes(body + records + end)


def _unicode_path(name: bytes, other: bytes) -> bytes:
    data = struct.pack("<BL", 1, zlib.crc32(name)) + other
    return struct.pack("<2H", 0x7075, len(data)) + data


_NAME = _STATE.encode()
_OTHER = b"shop/__init__.py"
_ZIP64 = struct.pack("<2HQ", 1, 8, 0)


def _renamed(raw: bytes) -> bytes:
    """The state under another name for Python 3.12 and newer, and what is not it under its own."""
    return _patched(raw, _OTHER, extra=_unicode_path(_OTHER, _NAME))


ZIPS: dict[str, Callable[[bytes], bytes]] = {
    "a Unicode path": lambda raw: _patched(raw, _NAME, extra=_unicode_path(_NAME, b"shop/x")),
    "another's Unicode path": _renamed,
    "a Unicode path before its bytes": lambda raw: _patched(
        raw, _NAME, local_extra=_unicode_path(_NAME, b"shop/x")
    ),
    "ZIP64 without need": lambda raw: _patched(raw, _NAME, extra=_ZIP64),
    "an extra field that is cut": lambda raw: _patched(raw, _NAME, extra=b"UT\x09\x00\x01"),
    "another name before its bytes": lambda raw: _patched(raw, _NAME, local=b"shop/other"),
    "a code file's other name before its bytes": lambda raw: _patched(raw, _OTHER, local=b"shop/x"),
    "an ending zero": lambda raw: _patched(
        raw, _NAME, central=_NAME + b"\0x", local=_NAME + b"\0x"
    ),
    "a name that is not UTF-8": lambda raw: _patched(
        raw, _OTHER, central=b"shop/\xe9", local=b"shop/\xe9"
    ),
    "encrypted": lambda raw: _patched(raw, _NAME, flags=1),
    "code that is encrypted": lambda raw: _patched(raw, _OTHER, flags=1),
    "a patch": lambda raw: _patched(raw, _NAME, flags=0x20),
    "something before": lambda raw: b"x" + raw,
    "another zip before": lambda raw: raw + raw,
    "a comment": lambda raw: raw[:-2] + b"\x04\x00abcd",
    "a comment that is a zip file's end": lambda raw: raw[:-2] + b"\x16\x00" + raw[-22:],
    "something after": lambda raw: raw + b"\n",
}


@pytest.mark.parametrize("case", ZIPS)
def test_a_zip_file_with_two_meanings_is_refused(
    case: str, good_wheel: Path, tmp_path: Path
) -> None:
    path = tmp_path / good_wheel.name
    path.write_bytes(_patched(good_wheel.read_bytes(), _NAME))
    assert accepts(path)
    path.write_bytes(ZIPS[case](good_wheel.read_bytes()))
    assert not accepts(path)


def test_something_between_two_entries_is_refused(good_wheel: Path, tmp_path: Path) -> None:
    """What reads a wheel while it is downloaded, as uv does, would find it."""
    with zipfile.ZipFile(good_wheel) as file:
        last = max(file.infolist(), key=lambda info: info.header_offset)
    raw, at = good_wheel.read_bytes(), last.header_offset
    hidden = struct.pack("<4s5H3L2H", b"PK\x03\x04", 20, 0, 0, 0, 33, 0, 0, 0, 6, 0) + b"shop/x"
    end = raw.rindex(b"PK\x05\x06")
    directory = struct.unpack("<L", raw[end + 16 : end + 20])[0]
    moved = raw[:at] + hidden + raw[at:directory]
    records = raw[directory:end]
    mark = records.rindex(b"PK\x01\x02")
    records = records[: mark + 42] + struct.pack("<L", at + len(hidden)) + records[mark + 46 :]
    tail = raw[end : end + 16] + struct.pack("<L", len(moved)) + raw[end + 20 :]
    path = tmp_path / good_wheel.name
    path.write_bytes(moved + records + tail)
    assert entries_of(path) == entries_of(good_wheel)
    assert not accepts(path)


# --- what the real readers find -----------------------------------------------------------------


def pythons() -> list[str]:
    """Every Python that this project supports, is here and starts; one of each version."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    found = {}
    for minor in range(10, 15):
        name = shutil.which(f"python3.{minor}")
        for path in (sys.executable, name, *pyenv.glob(f"3.{minor}.*/bin/python3")):
            command = [path or "false", "-c", "import sys; print(*sys.version_info[:2])"]
            done = subprocess.run(command, capture_output=True, check=False)
            if done.returncode == 0:
                found.setdefault(done.stdout, str(path))
    return list(found.values())


_READ = """
import json, sys, zipfile, zipimport
found = {}
for path in sys.argv[1:]:
    try:
        with zipfile.ZipFile(path) as file:
            names = [name for name in file.namelist() if name[-1] != "/"]
            found[path] = {name: file.read(name).hex() for name in names}
        importer = zipimport.zipimporter(path)
        for name in found[path]:
            assert importer.get_data(name).hex() == found[path][name], name
    except Exception as error:
        found[path] = repr(error)
print(json.dumps(found))
"""


def test_every_python_reads_what_verify_accepts(good_wheel: Path, tmp_path: Path) -> None:
    """Single changes of the zip's own fields; all that are accepted are read by each Python."""
    raw = good_wheel.read_bytes()
    directory = struct.unpack("<L", raw[-6:-2])[0]
    expected = {name: data.hex() for name, data in entries_of(good_wheel).items()}
    accepted = []
    for at in range(directory, len(raw)):
        for value in {raw[at] ^ 1, raw[at] ^ 0x80, 0xFF}:
            path = tmp_path / f"{at}-{value}.whl"
            path.write_bytes(raw[:at] + bytes([value]) + raw[at + 1 :])
            if accepts(path):
                accepted.append(path)
            else:
                path.unlink()
    assert len(accepted) > 10
    for python in pythons():
        done = subprocess.run(
            [python, "-c", _READ, *accepted], capture_output=True, text=True, check=True
        )
        for path, found in json.loads(done.stdout).items():
            assert found == expected, (python, path)


_TARGETS = st.sampled_from(
    [_STATE, f"{PLACE}/@manifest.json", f"{PLACE}/B", PLACE, "shop/defs", "shop/defs/__init__.py",
     "shop/__init__.py", "shop", "other/defs/x", "shop/x"]
)  # fmt: skip
_SCHEMES = st.sampled_from(
    ["", "shop-1.0.data/purelib/", "shop-1.0.data/platlib/", "shop-1.0.data/data/",
     "shop-1.0.data/headers/", "shop-1.0.data/scripts/", "x.data/purelib/", "shop-1.0.data/",
     f"shop-1.0.data/data/lib/python3.{sys.version_info[1]}/site-packages/"]
)  # fmt: skip
_ENDS = st.sampled_from(["", "", "/more", "x"])
_NAMES = st.builds("".join, st.tuples(_SCHEMES, _TARGETS, _ENDS))
_INSTALL = """
import sys
from pip._internal.cli.main import main
for wheel in sys.argv[1:]:
    main([
        "install", "--no-deps", "--no-index", "--no-compile", "--quiet", "--prefix",
        wheel + ".installed", "--disable-pip-version-check", "--root-user-action=ignore", wheel,
    ])
"""


@given(st.lists(_NAMES, min_size=40, max_size=40, unique=True))
@settings(max_examples=2, deadline=None, suppress_health_check=list(HealthCheck))
def test_an_accepted_wheel_is_installed_as_the_manifest_says(
    good_wheel: Path, names: list[str]
) -> None:
    """Wheels with another file somewhere, of which pip installs those that are accepted."""
    before = entries_of(good_wheel)
    with tempfile.TemporaryDirectory() as folder:
        accepted = []
        for number, name in enumerate(sorted(set(names) - before.keys())):
            path = Path(folder, str(number), good_wheel.name)
            path.parent.mkdir()
            if accepts(write(path, added(name)(before))):
                accepted.append(path)
        subprocess.run([sys.executable, "-c", _INSTALL, *accepted], check=True, capture_output=True)
        installed = [_installed(Path(f"{path}.installed")) for path in accepted]
    start = f"{PLACE}/"
    expected = {name[len(start) :]: data for name, data in before.items() if name.startswith(start)}
    assert expected in installed
    # pip refuses what it cannot install, such as an unknown folder below *.data.
    assert all(found in (expected, None) for found in installed)


def _installed(prefix: Path) -> Entries | None:
    for site in prefix.glob("lib*/python3*/site-packages"):
        place = site / PLACE
        return {
            file.relative_to(place).as_posix(): file.read_bytes()
            for file in place.rglob("*")
            if file.is_file()
        }
    return None


# --- PEX files ----------------------------------------------------------------------------------

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
    "a prefix that is none": ("sources", dict),
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
    path.write_bytes(b"junk" if case == "a prefix that is none" else b"")
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


@pytest.mark.parametrize("argument", ["--pex-path=x.pex", "--pex-path", "--inherit-path=prefer"])
def test_what_verify_would_refuse_is_refused_before_the_build(argument: str) -> None:
    with pytest.raises(UsageError, match="another copy"):
        parse(["-o", "app.pex", argument, "x.pex"])
    parse(["-o", "app.pex", "--inherit-path=fallback", "--pex-root", "x"])
