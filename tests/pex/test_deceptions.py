"""Wheels, and zip files as such, in which something else would be installed than is read.

Each is refused by `verify`; and what `verify` accepts is what the real pip installs, and what every
Python here reads.
"""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.deceptions import Entries, accepts, entries_of, pythons, recorded, write
from tests.support.embedding import embed_wheel
from tests.support.pex_projects import (
    PLACE,
    RECORD,
    bundle_of,
    set_state,
    wheel,
)

_STATE = f"{PLACE}/A/state"
_RECORD = "shop-1.0.dist-info/RECORD"


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
    "purelib next to a state": added(f"shop-1.0.data/purelib/{PLACE}/more"),
    "purelib over code": added("shop-1.0.data/purelib/shop/defs/__init__.py"),
    "purelib into the package": added("shop-1.0.data/purelib/shop/defs/more.py"),
    "data into the package": added("shop-1.0.data/data/shop/defs/more/defs.yaml"),
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
        "shop-1.0.data/data/shop/defs/README",
        "shop-1.0.data/scripts/shop-tool",
        "shop-1.0.data/headers/shop.h",
        "shop-1.0.data/purelib/other/x.py",
        "shop/defs/deeper/.hidden",
    ],
)
def test_what_ordinary_wheels_hold_is_accepted(name: str, good_wheel: Path, tmp_path: Path) -> None:
    assert accepts(write(tmp_path / good_wheel.name, added(name)(entries_of(good_wheel))))


@pytest.mark.parametrize("bits", [0o120777, 0o100000, 0o104755, 0o102755, 0o020644, 0o010644])
def test_what_is_not_a_plain_file_is_refused(bits: int, good_wheel: Path, tmp_path: Path) -> None:
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
