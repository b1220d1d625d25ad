"""Every fix that the guard prints, pasted into a shell, fixes what it was printed for."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.workdir import STATE, WorkDir

# Each test runs twenty programs.
pytestmark = pytest.mark.slow
DIRECTORY = f"src/defs/{STATE}"
FILE = f"{DIRECTORY}/Orders/state"
SOURCE = '[[tool.state-bundler.source]]\nkey = "K"\ncommand = ["true"]\npath = {path}\n'


def findings(wd: WorkDir, *moment: str) -> list[dict[str, str]]:
    said = wd.guard(*moment, "--format", "json")
    assert said.out, said
    found: list[dict[str, str]] = json.loads(said.out)["findings"]
    return found


def is_sentence(fix: str) -> bool:
    """What takes the user says so in a message; everything else is for the shell."""
    return fix.endswith(".") and fix[0].isupper() and " -- " not in fix


def paste(wd: WorkDir, fix: str) -> None:
    assert "\n" not in fix
    assert not is_sentence(fix), fix
    wd(["sh", "-c", fix])


def cure(wd: WorkDir, *moment: str, rules: set[str]) -> None:
    """Pastes the fixes until none is left; each finding disappears when its own was pasted."""
    seen, found = set(), findings(wd, *moment)
    for _ in range(8):
        if not found:
            break
        first = found[0]
        seen.add(first["rule"])
        paste(wd, first["fix"])
        found = findings(wd, *moment)
        left = [(each["rule"], each["where"]) for each in found]
        assert (first["rule"], first["where"]) not in left, first
    assert found == []
    assert seen == rules


def would_take(wd: WorkDir) -> str:
    return wd("git add -A --dry-run")


# --- the ignore file ------------------------------------------------------------------------


def absent(path: Path) -> None:
    pass


def text(content: bytes) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        path.write_bytes(content)

    return write


def link(path: Path) -> None:
    path.with_name("rules").write_text("*.log\n.env\n")
    path.symlink_to("rules")


def dangling_link(path: Path) -> None:
    path.symlink_to("nowhere")


def link_in_a_circle(path: Path) -> None:
    path.symlink_to(path.name)


def link_to_a_device(path: Path) -> None:
    path.symlink_to("/dev/null")


def directory(path: Path) -> None:
    path.mkdir()
    (path / "file").write_text("x\n")


def read_only(path: Path) -> None:
    path.write_text("*.log\n.env\n")
    path.chmod(0o444)


IGNORE_FILES: dict[str, Callable[[Path], None]] = {
    "absent": absent,
    "empty": text(b""),
    "one line": text(b"*.log\n.env\n"),
    "no final newline": text(b"*.log\n.env"),
    "CRLF": text(b"*.log\r\n.env\r\n"),
    "CRLF, no final newline": text(b"*.log\r\n.env"),
    "byte order mark": text(b"\xef\xbb\xbf*.log\n.env\n"),
    "byte order mark alone": text(b"\xef\xbb\xbf"),
    "byte order mark before our rule": text(f"*.log\n.env\n\ufeff{STATE}\n".encode()),
    "UTF-16, little": text("\ufeff*.log\n.env\n".encode("utf-16-le")),
    "UTF-16, big": text("\ufeff*.log\n.env\n".encode("utf-16-be")),
    "UTF-16 without a mark": text(f".env\r\n*.log\r\n{STATE}\r\n".encode("utf-16-le")),
    "UTF-32": text("\ufeff*.log\n.env\n".encode("utf-32-le")),
    "Latin-1": text(b"caf\xe9\n*.log\n.env\n"),
    "link": link,
    "dangling link": dangling_link,
    "link in a circle": link_in_a_circle,
    "link to a device": link_to_a_device,
    "directory": directory,
    "read-only": read_only,
    "everything ignored": text(b"*\n!*/\n!src/**\n"),
    "negated last": text(f"*.log\n.env\n{STATE}\n!{STATE}\n".encode()),
    "trailing comment": text(f"*.log\n.env\n{STATE}/ # state\n".encode()),
    "trailing space": text(f"*.log\n.env\n/src/defs/{STATE}/x \n".encode()),
    "another case": text(f"*.log\n.env\n{STATE.upper()}\n".encode()),
}
# What had these rules keeps them.
KEEPS_ENV = {
    *("one line", "no final newline", "CRLF", "CRLF, no final newline", "byte order mark"),
    *("byte order mark before our rule", "UTF-16, little", "UTF-16, big", "UTF-16 without a mark"),
    *("UTF-32", "Latin-1", "link", "read-only", "negated last", "trailing comment"),
}
SENTENCES = {
    "link": "is a symbolic link, and git reads no rules from links.",
    "dangling link": "is a symbolic link, and git reads no rules from links.",
    "directory": "is not a file, so git reads no rules from it.",
    "UTF-16, little": "is UTF-16 text, and git reads no rules from it.",
    "UTF-16 without a mark": "is UTF-16 text, and git reads no rules from it.",
    "UTF-32": "is UTF-32 text, and git reads no rules from it.",
    "byte order mark before our rule": "Line 3 of .gitignore begins with a byte order mark",
}


@pytest.mark.parametrize("tracked", [True, False])
@pytest.mark.parametrize("kind", IGNORE_FILES)
def test_an_unprotected_directory(wd: WorkDir, kind: str, *, tracked: bool) -> None:
    wd.write("code.py")
    wd.commit("code")
    IGNORE_FILES[kind](wd.path / ".gitignore")
    if tracked and os.path.lexists(wd.path / ".gitignore"):
        wd("git add -f .gitignore")
        wd.commit("rules", add=False)
    wd.write(FILE)
    if kind in SENTENCES:
        assert SENTENCES[kind] in wd.guard().err
    (rule,) = {each["rule"] for each in findings(wd)}
    cure(wd, rules={rule})
    assert STATE not in would_take(wd)
    assert STATE in wd("git show HEAD:.gitignore")
    assert stat.S_ISREG((wd.path / ".gitignore").lstat().st_mode)
    if kind in KEEPS_ENV:  # no rule was lost
        wd.write(".env", "SECRET=1\n")
        wd.write("x.log")
        assert wd.run("git check-ignore .env x.log").stdout == b".env\nx.log\n"


@pytest.mark.parametrize("kind", ["one line", "no final newline", "UTF-16, little", "link"])
def test_a_directory_without_state_yet(wd: WorkDir, kind: str) -> None:
    wd.write("pyproject.toml", '[tool.dg.project]\nroot_module = "x"\ndefs_module = "defs"\n')
    wd.write("src/defs/__init__.py")
    wd.commit("code")
    IGNORE_FILES[kind](wd.path / ".gitignore")
    cure(wd, rules={"protection-missing"})


@pytest.mark.parametrize("kind", ["absent", "no final newline", "dotfiles", "UTF-16, big"])
def test_protection_of_this_machine_only(wd: WorkDir, kind: str) -> None:
    wd.write("code.py")
    wd.commit("code")
    wd.write(".git/info/exclude", f"{STATE}\n")
    wd.write(FILE)
    (text(b".*\n") if kind == "dotfiles" else IGNORE_FILES[kind])(wd.path / ".gitignore")
    cure(wd, rules={"protection-local"})


def test_a_rule_that_is_not_committed(wd: WorkDir) -> None:
    wd.write("code.py")
    wd.commit("code")
    wd.write(".gitignore", f"{STATE}\n")
    wd.write(FILE)
    wd.write("staged.py")
    wd("git add staged.py")
    cure(wd, rules={"protection-local"})
    assert wd("git diff --cached --name-only") == "staged.py"  # nobody asked for that


@pytest.mark.parametrize("where", ["below", "above", "elsewhere", "in a submodule"])
def test_from_where_the_user_is(wd: WorkDir, tmp_path: Path, where: str) -> None:
    wd.write("sub dir/code.py")
    wd.commit("code")
    if where == "below":
        at, options = wd.at("sub dir"), []
    elif where == "in a submodule":
        library = WorkDir.make(tmp_path / "library")
        library.write("code.py")
        library.commit("code")
        wd.submodule(library, "lib")
        wd.commit("lib")
        at, options = wd.at("lib"), ["-C", ".."]
    else:
        at = wd.at("..") if where == "above" else WorkDir(Path("/"), wd.env)
        options = ["-C", str(wd.path)]
    wd.write(FILE)
    (finding,) = json.loads(at.guard(*options, "--format", "json").out)["findings"]
    paste(at, finding["fix"])
    assert findings(wd) == []
    assert (wd.path / ".gitignore").read_text() == f"{STATE}\n"


def test_in_a_submodule_s_own_repository(wd: WorkDir, tmp_path: Path) -> None:
    library = WorkDir.make(tmp_path / "library")
    library.write("code.py")
    library.commit("code")
    wd.submodule(library, "lib")
    wd.commit("lib")
    wd.at("lib").write(FILE)
    cure(wd, rules={"state-unprotected"})
    assert wd.at("lib")("git status --porcelain") == ""


DEEPER = {
    "negated on the way": ("src/.gitignore", f"!{STATE}\n"),
    "negated next to it": ("src/defs/.gitignore", f"!{STATE}/\n"),
    "its contents negated": (f"{DIRECTORY}/.gitignore", "!*\n"),
    "a key negated": ("src/defs/.gitignore", f"{STATE}/*\n!{STATE}/Orders\n"),
}


@pytest.mark.parametrize("case", DEEPER)
def test_a_deeper_rule_that_takes_the_protection_away(wd: WorkDir, case: str) -> None:
    wd.write("src/defs/code.py")
    wd.commit("code")
    path, rules = DEEPER[case]
    wd.write(path, rules)
    wd(["git", "add", "-f", path])
    wd.commit("rules", add=False)
    wd.write(FILE)
    cure(wd, rules={"state-unprotected"})


@pytest.mark.parametrize(
    "name",
    ["var/state", "a b/c", "#x/!y", "st[a]r*?", "-n", "ünï", " x ", "it's", '"q"'],
)
def test_rules_of_configured_directories(wd: WorkDir, name: str) -> None:
    wd.write("pyproject.toml", SOURCE.format(path=json.dumps(name, ensure_ascii=False)))
    wd.commit("code")
    wd.write(f"{name}/K/state", "some state, of more than sixteen characters\n")
    cure(wd, rules={"state-unprotected"})
    assert wd("git ls-files --others --exclude-standard") == ""
    clone = wd.at("..", "clone")
    wd(["git", "clone", "-q", str(wd.path), str(clone.path)])
    assert findings(clone) == []


@pytest.mark.parametrize("cone", ["--cone", "--no-cone"])
def test_a_sparse_checkout_without_the_root_s_file(wd: WorkDir, cone: str) -> None:
    wd.write(".gitignore", "*.log\n.env\n")
    wd.write("src/defs/code.py")
    wd.write("docs/text.md")
    wd.commit("code")
    wd(["git", "sparse-checkout", "set", cone, "src" if cone == "--cone" else "/src/"])
    wd.write(FILE)
    cure(wd, rules={"state-unprotected"})
    assert wd("git show HEAD:.gitignore").split() == ["*.log", ".env", STATE]


# --- state in git ---------------------------------------------------------------------------

NAMES = (
    b"state",
    b"new\nline",
    b"it's",
    b'"q"',
    b"-n",
    b":x",
    b"st*r",
    b"\xff\xfe",
    b"\x1b[31mred",
    b"$(echo x)",
    b"`echo x`",
    b"a;b",
    b" x ",
    b"back\\slash",
    b"%s",
    b"~",
)


@pytest.mark.parametrize("name", NAMES)
def test_state_in_the_index(wd: WorkDir, name: bytes) -> None:
    wd.write(".gitignore", f"{STATE}\n")
    wd.commit("code")
    for path in (
        b"src/defs/.local_defs_state/" + name + b"/x",
        b"src/defs/.local_defs_state/K/" + name,
    ):
        wd.write(path)
    wd(["git", "add", "-f", "src"])
    for moment in (["--staged"], []):
        cure(wd, *moment, rules={"state-in-index"} if moment else set())
    assert (wd.path / DIRECTORY).is_dir()


STAGED: dict[str, list[str]] = {
    "changed since": ["echo more >> {file}", "git add -f {file}", "echo more >> {file}"],
    "intent to add": ["git rm -q --cached {file}", "git add -N -f {file}"],
    "assume unchanged": ["git update-index --assume-unchanged {file}"],
    "skip worktree": ["git update-index --skip-worktree {file}"],
    "not on disk": ["git update-index --skip-worktree {file}", "rm {file}"],
    "deleted": ["rm {file}"],
    "sparse": ["git sparse-checkout set --cone docs"],
    "sparse index": ["git sparse-checkout set --cone --sparse-index docs"],
    "read-only": ["chmod 444 {file}"],
}


@pytest.mark.parametrize("case", STAGED)
@pytest.mark.parametrize("committed", [True, False])
def test_state_in_the_index_in_every_way(wd: WorkDir, case: str, *, committed: bool) -> None:
    wd.write(".gitignore", f"{STATE}\n")
    wd.write("docs/text.md")
    wd.commit("code")
    wd.write(FILE)
    wd(["git", "add", "-f", FILE])
    if committed:
        wd.commit("leak", add=False)
    for command in STAGED[case]:
        wd(["sh", "-c", command.format(file=FILE)])
    cure(wd, "--staged", rules={"state-in-index"})
    cure(wd, rules={"state-in-head"} if committed else set())


def test_unmerged_state(wd: WorkDir) -> None:
    wd.write(".gitignore", f"{STATE}\n")
    wd.commit("code")
    blob = wd("git hash-object -w .gitignore")
    entries = "".join(f"100644 {blob} {stage}\t{FILE}\n" for stage in (1, 2, 3))
    wd("git update-index --index-info", stdin=entries.encode())
    cure(wd, "--staged", rules={"state-in-index"})


def test_a_copy_of_state(wd: WorkDir) -> None:
    wd.write(".gitignore", f"{STATE}\n")
    wd.write("pyproject.toml", '[tool.dg.project]\nroot_module = "x"\ndefs_module = "defs"\n')
    wd.commit("code")
    wd.write(FILE)
    wd.write("copy of it.json", (wd.path / FILE).read_bytes())
    wd("git add -A")
    cure(wd, "--staged", rules={"state-copy"})
    assert (wd.path / "copy of it.json").exists()


def test_state_in_the_commit_that_is_pushed(wd: WorkDir) -> None:
    wd.write(".gitignore", f"{STATE}\n")
    wd.commit("code")
    wd("git update-ref refs/remotes/origin/main HEAD")
    wd.write(FILE)
    wd("git add -f -A")
    wd.commit("leak", add=False)
    cure(wd, "--push", rules={"state-in-commit"})
    assert (wd.path / FILE).exists()


def test_what_only_the_user_can_do_is_a_message(wd: WorkDir) -> None:
    wd.write(FILE)
    wd("git add -f -A")
    wd.commit("leak", add=False)
    wd("git rm -rq --cached src")
    wd.commit("cure", add=False)
    for moment in ("--push", "--history"):
        assert all(is_sentence(each["fix"]) for each in findings(wd, moment))


# --- when git cannot answer -----------------------------------------------------------------


def test_a_damaged_index(wd: WorkDir) -> None:
    wd.write("code.py")
    wd.commit("code")
    index = wd.path / ".git/index"
    index.write_bytes(index.read_bytes()[:-30])
    said = wd.guard()
    assert said.code == 71
    (fix,) = (line for line in said.err.splitlines() if line.startswith("  Fix: "))
    wd(["sh", "-c", fix.partition("Rebuild it from HEAD: ")[2]])
    assert wd.guard().code == 0
