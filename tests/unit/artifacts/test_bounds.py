"""However much an artifact holds of something, reading it takes bounded memory and CPU time.

CPU time is that of the process alone: a busy machine does not change it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bundler.artifacts.image import image
from tests.support.bundles import make_bundle
from tests.support.crafted import END, STATES, header, long_name, make, pax
from tests.support.embedding import embed_wheel
from tests.support.layouts import LayoutMaker, code_layer
from tests.support.pex_projects import PLACE, RECORD, wheel

MANY = 20_000
# Of one run. The program itself takes 60 MB; twenty thousand values are a few more.
MEGABYTES = 160
CPU_SECONDS = 30
CHARACTERS = 64 << 10
# Runs commands one after the other. VmHWM is the most memory since it was last reset.
PROGRAM = """\
import contextlib, io, json, sys, time
from bundler.cli.commands import cli
from bundler.cli.run import run

answers = sys.stdout
for line in sys.stdin:
    open("/proc/self/clear_refs", "w").write("5")
    before = time.process_time()
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        code = run(cli, json.loads(line))
    peak = int(open("/proc/self/status").read().partition("VmHWM:")[2].split()[0])
    answer = [code, peak >> 10, time.process_time() - before, said.getvalue()]
    print(json.dumps(answer), file=answers, flush=True)
"""
pytestmark = pytest.mark.slow  # some hundred thousand files and entries are written
Case = Callable[[Path], str | Path]


def layers(change: Callable[[], bytes], *, top: bool = False, below: bool = False) -> Case:
    """An image with a further layer, or with more in the layer of the state."""

    def build(folder: Path) -> str:
        good = make(folder)
        data = change()
        if top:
            made = good.with_top(good.layers[-1][: -len(END)] + data + END)
        elif below:
            made = good.changed([*good.layers[:-1], data + END, good.layers[-1]], relabelled=True)
        else:
            made = good.with_layer(data + END)
        return f"oci:{made.layout(folder / 'layout')}"

    return build


def settings(**values: Any) -> Case:
    def build(folder: Path) -> str:
        made = make(folder)
        made.config["config"].update(values)
        return f"oci:{made.layout(folder / 'layout')}"

    return build


def config(**values: Any) -> Case:
    def build(folder: Path) -> str:
        made = make(folder)
        made.config.update(values)
        return f"oci:{made.layout(folder / 'layout')}"

    return build


def index(width: int, depth: int = 1) -> Case:
    def build(folder: Path) -> str:
        maker = LayoutMaker(folder / "layout")
        entry = maker.manifest([code_layer()], {})
        for _ in range(depth):
            entry = maker.index([entry] * width)
        maker.tag(entry)
        return f"oci:{maker.path}"

    return build


def tags(folder: Path) -> str:
    maker = LayoutMaker(folder / "layout")
    entries = [maker.manifest([code_layer()], {"User": user}) for user in ("a", "b")]
    for number in range(500):
        maker.tag(entries[number % 2], f"t{number}")
    index = json.loads((maker.path / "index.json").read_text())
    index["manifests"] *= MANY // 500
    (maker.path / "index.json").write_text(json.dumps(index))
    return f"oci:{maker.path}"


def annotations(folder: Path) -> str:
    made = make(folder)
    made.annotations.update({f"n{number}": "x" for number in range(MANY)})
    return f"oci:{made.layout(folder / 'layout')}"


def archive(members: Callable[[tarfile.TarFile], object]) -> Case:
    """A layout as an archive, with more members in front."""

    def build(folder: Path) -> str:
        layout = make(folder).layout(folder / "layout")
        with tarfile.open(folder / "image.tar", "w") as made:
            members(made)
            made.add(layout, ".")
        return f"oci:{folder / 'image.tar'}"

    return build


def empty_members(made: tarfile.TarFile) -> None:
    for number in range(MANY):
        made.addfile(tarfile.TarInfo(f"more/{number}"))


def links(made: tarfile.TarFile) -> None:
    for number in range(MANY):
        info = tarfile.TarInfo(f"blobs/sha256/{number}")
        info.type, info.linkname = tarfile.SYMTYPE, f"{number + 1}"
        made.addfile(info)


def directory(change: Callable[[Path], object]) -> Case:
    def build(folder: Path) -> Path:
        make_bundle(folder / "state", STATES)
        change(folder / "state")
        return folder / "state"

    return build


def many_files(below: str) -> Callable[[Path], object]:
    def change(root: Path) -> None:
        (root / below).mkdir(parents=True, exist_ok=True)
        for number in range(MANY):
            os.close(os.open(root / below / str(number), os.O_CREAT | os.O_WRONLY))

    return change


def many_folders(root: Path) -> None:
    for number in range(MANY // 4):
        (root / "Catalog" / str(number)).mkdir()


def many_names(root: Path) -> None:
    """A manifest that agrees with itself, of files that are not there."""
    raw = json.loads((root / "@manifest.json").read_bytes())
    files = raw["predicate"]["contents"]["states"][0]["files"]
    more = [{**files[0], "path": f"x/{number:06}"} for number in range(MANY)]
    raw["predicate"]["contents"]["states"][0]["files"] = files + more
    (root / "@manifest.json").write_text(json.dumps(raw))


def manifest_of(character: str, number: int, around: str = "") -> Callable[[Path], object]:
    return lambda root: (root / "@manifest.json").write_text(around + character * number + around)


def journal(root: Path) -> None:
    (root / "@staging").mkdir()
    names = [f"f{number}" for number in range(MANY)]
    text = json.dumps({"states": {}, "removed": names, "files": names})
    (root / "@staging/journal.json").write_text(text)


def deep(root: Path) -> None:
    here = os.open(root, os.O_RDONLY)
    for _ in range(5000):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)


def python(change: Callable[[zipfile.ZipFile], object]) -> Case:
    """A wheel with a state, to which something was added."""

    def build(folder: Path) -> Path:
        base = wheel(folder / "base")
        bundle = make_bundle(folder / "state", STATES, place=PLACE)
        (folder / "made").mkdir()
        target = folder / "made" / base.name
        embed_wheel(base, [bundle], RECORD, target)
        with zipfile.ZipFile(target, "a", zipfile.ZIP_DEFLATED) as made:
            change(made)
        return target

    return build


def entries(below: str) -> Callable[[zipfile.ZipFile], object]:
    def change(made: zipfile.ZipFile) -> None:
        for number in range(MANY):
            made.writestr(f"{below}/{number}", b"")

    return change


def zeros(name: str, megabytes: int) -> Callable[[zipfile.ZipFile], object]:
    def change(made: zipfile.ZipFile) -> None:
        with made.open(name, "w") as stream:
            for _ in range(megabytes):
                stream.write(bytes(1 << 20))

    return change


def each(member: Callable[[int], bytes], number: int = MANY) -> Callable[[], bytes]:
    return lambda: b"".join(map(member, range(number)))


FILES = each(lambda n: header(f"srv/{n}"))
FOLDERS = each(lambda n: header(f"srv/{n}/", flag=b"5"))
LINKS = each(lambda n: header(f"srv/{n}", flag=b"2", target=b"%d" % (n + 1)))
HARD = each(lambda n: header(f"srv/{n}", flag=b"1", target=b"srv/%d" % (n + 1)))
WHITEOUTS = each(lambda n: header(f"srv/.wh.{n}"))
LONG = each(lambda n: pax(("path", f"srv/{'n' * 200}/{n}")) + header("x"), MANY // 4)

CASES: dict[str, tuple[Case, int]] = {
    "files in a layer above": (layers(FILES), 0),
    "directories in a layer above": (layers(FOLDERS), 0),
    "a chain of links in a layer above": (layers(LINKS), 0),
    "a chain of hard links in a layer above": (layers(HARD), 0),
    "whiteouts in a layer above": (layers(WHITEOUTS), 0),
    "one name again and again in a layer above": (layers(lambda: header("srv/x") * MANY), 0),
    "long names in a layer above": (layers(LONG), 0),
    "files in a layer below": (layers(FILES, below=True), 0),
    "files in the layer of the state": (layers(FILES, top=True), 76),
    "pax headers for one member": (
        layers(lambda: pax(("mtime", "1")) * MANY + header("x")), 76,
    ),
    "pax headers in the layer of the state": (
        layers(lambda: pax(("mtime", "1")) * MANY + header("x"), top=True), 76,
    ),
    "records in a pax header": (
        layers(lambda: pax(*((f"a{n}", "x") for n in range(MANY))) + header("x")), 0,
    ),
    "global pax headers": (layers(lambda: pax(("comment", "c"), flag=b"g") * MANY), 0),
    "GNU names for one member": (layers(lambda: long_name("y") * MANY + header("x")), 76),
    "GNU targets for one member": (layers(lambda: long_name("y", b"K") * MANY + header("x")), 76),
    "zeros after the end": (layers(lambda: END + bytes(1 << 27)), 0),
    "labels": (settings(Labels={f"l{n}": "x" for n in range(MANY)}), 76),
    "variables": (settings(Env=[f"A{n}=x" for n in range(MANY)]), 0),
    "volumes": (settings(Volumes={f"/v{n}": {} for n in range(MANY)}), 0),
    "a label of 8 MB": (settings(Labels={image.LABEL_PLACES: "[" * (8 << 20)}), 76),
    "history": (config(history=[{"created_by": "x"}] * MANY), 0),
    "layers in the configuration": (
        config(rootfs={"type": "layers", "diff_ids": ["sha256:" + "0" * 64] * MANY}), 76,
    ),
    "annotations": (annotations, 0),
    "platforms": (index(MANY), 76),
    "indexes in indexes": (index(200, depth=3), 76),
    "tags": (tags, 2),
    "members of an archive": (archive(empty_members), 0),
    "links in an archive": (archive(links), 0),
    "files in a state directory": (directory(many_files("Old")), 76),
    "files in a key directory": (directory(many_files("Catalog")), 76),
    "directories in a key directory": (directory(many_folders), 76),
    "directories in each other": (directory(deep), 76),
    "files in the staging area": (directory(many_files("@staging/x")), 0),
    "names in a manifest": (directory(many_names), 76),
    "nesting in a manifest": (directory(manifest_of("[", 1_000_000)), 76),
    "digits in a manifest": (directory(manifest_of("1", 1_000_000)), 76),
    "a text of 50 MB as a manifest": (directory(manifest_of("x", 50 << 20, '"')), 76),
    "names in a journal": (directory(journal), 76),
    "entries of a wheel": (python(entries("other")), 76),
    "entries in a wheel's state": (python(entries(PLACE)), 76),
    "a state in a wheel that unpacks to 256 MB": (python(zeros(f"{PLACE}/Catalog/x", 256)), 76),
    "metadata of a wheel": (python(zeros("shop-1.0.dist-info/more", 256)), 76),
}  # fmt: skip


@pytest.fixture(scope="module")
def program() -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield process
        assert process.stdin is not None
        process.stdin.close()


def run(program: subprocess.Popen[str], *arguments: str) -> tuple[int, str]:
    """The exit code of a command and what it printed, with little memory, CPU time and output."""
    assert program.stdin is not None
    assert program.stdout is not None
    print(json.dumps(arguments), file=program.stdin, flush=True)
    code, megabytes, seconds, said = json.loads(program.stdout.readline())
    assert "Traceback" not in said
    assert len(said) < CHARACTERS, said[:2000]
    assert megabytes < MEGABYTES, said[:2000]
    assert seconds < CPU_SECONDS, said[:2000]
    return code, said


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder for what pytest could not remove: it is too deep for `shutil.rmtree`."""
    yield tmp_path
    subprocess.run(["rm", "-rf", tmp_path], check=True)


@pytest.mark.parametrize("what", CASES)
def test_verifying_it_is_bounded(what: str, folder: Path, program: subprocess.Popen[str]) -> None:
    build, expected = CASES[what]
    code, said = run(program, "verify", str(build(folder)))
    assert code == expected, said[:2000]


@pytest.mark.parametrize(
    "what",
    ["files in a layer above", "pax headers for one member", "members of an archive",
     "files in a key directory", "entries in a wheel's state"],
)  # fmt: skip
def test_other_commands_are_bounded(
    what: str, tmp_path: Path, program: subprocess.Popen[str]
) -> None:
    name = str(CASES[what][0](tmp_path))
    for arguments in (["diff", name, name], ["extract", name, "-o", f"{tmp_path}/out"]):
        code, said = run(program, *arguments)
        assert code in (0, 76), said[:2000]
    code, said = run(program, "status", name)
    assert code in (0, 76), said[:2000]
