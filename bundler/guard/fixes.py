"""The commands that are printed as fixes: safe to paste where the user is, and enough.

They name files from the current directory, and paths in git from the top. None of them changes a
file of the work tree but an ignore file, which only grows, or is written anew with the same lines.
"""

from __future__ import annotations

import os
import stat

from bundler import git
from bundler.guard.state_paths import NAME, RULE_FILE, join
from bundler.system.fast_tuple import NamedTuple
from bundler.system.git_directory import is_below, locate, read_regular

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

# git gave these commands an option for what a sparse checkout leaves out. Older ones need none.
_SPARSE = "--sparse "
_LARGE_BYTES = 1 << 20
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
# What editors write, from the most to the least bytes a character.
_ENCODINGS = (
    (b"\xff\xfe\0\0", "UTF-32"),
    (b"\0\0\xfe\xff", "UTF-32"),
    (b"\xff\xfe", "UTF-16"),
    (b"\xfe\xff", "UTF-16"),
)


def git_command(top: bytes) -> str:
    """``git``, with ``-C`` if the current directory is not in this repository."""
    try:
        found = locate(os.getcwdb())
    except (OSError, ValueError):
        found = None
    is_here = found is not None and found.top == top
    return "git" if is_here else f"git -C {_from_here(top, top)}"


def file_from_here(top: bytes, path: bytes) -> str:
    """A file's name, quoted for the shell."""
    return _from_here(top, join(top, path))


def _from_here(top: bytes, path: bytes) -> str:
    """Relative to the current directory, if that is above it or in the same repository."""
    try:
        here = os.getcwdb()
    except OSError:
        here = b"/"
    if here != b"/" and (is_below(path, here) or is_below(here, top)):
        path = os.path.relpath(path, here)
    return git.quoted(os.fsdecode(b"./" + path if path.startswith(b"-") else path))


def pathspec(path: bytes) -> str:
    return git.quoted(git.literal(path))


def take_out(top: bytes, path: bytes, *, is_sparse: bool) -> str:
    """Takes a path out of the index, also one that was staged since; the file stays."""
    sparse = _SPARSE if is_sparse else ""
    return f"{git_command(top)} rm -r -f --cached {sparse}-- {pathspec(path)}"


def amend(top: bytes, path: bytes) -> str:
    """Takes a path out of the last commit, which may have nothing else in it."""
    call = git_command(top)
    removal = f"{call} rm -r -f --cached --ignore-unmatch -- {pathspec(path)}"
    return f"{removal} && {call} commit --amend --no-edit --allow-empty"


def commit(top: bytes, message: str, path: bytes | None = None) -> str:
    only = "" if path is None else f" -- {pathspec(path)}"
    return f"{git_command(top)} commit -m {git.quoted(message)}{only}"


# --- the ignore file ------------------------------------------------------------------------


class FixTarget(NamedTuple):
    """The ignore file that gets a rule. path: relative to the top.

    problem: why git reads no rules from it, a message; empty if it does. repair: the commands that
    change this. is_here: False in a sparse checkout that leaves it out.
    """

    path: bytes
    problem: str = ""
    repair: tuple[str, ...] = ()
    is_here: bool = True


def target_of(
    top: bytes, directory: bytes, deciding: git.IgnoreRule | None, found: Iterable[bytes]
) -> FixTarget:
    """The ignore file for a state directory's rule: the root's, or a deeper one that negates it.

    deciding: the rule that decides over the directory. found: the ignore files in the index.
    """
    path = RULE_FILE
    if deciding is not None and deciding.pattern.startswith(b"!"):
        folder, name = os.path.split(deciding.source)
        if name == RULE_FILE and (directory + b"/").startswith(folder + b"/"):
            path = deciding.source
    if not os.path.lexists(join(top, path)) and path in found:
        return FixTarget(path, is_here=False)
    return _examined(top, path)


def _examined(top: bytes, path: bytes) -> FixTarget:
    file, shown, word = join(top, path), git.printable(path), file_from_here(top, path)
    try:
        mode = os.lstat(file).st_mode
    except OSError:
        return FixTarget(path)
    if stat.S_ISLNK(mode):
        problem = f"{shown} is a symbolic link, and git reads no rules from links."
        is_copied = os.path.isfile(file)
        return FixTarget(path, problem, _rewritten("cat", word) if is_copied else (f"rm {word}",))
    if not stat.S_ISREG(mode):
        problem = f"{shown} is not a file, so git reads no rules from it."
        return FixTarget(path, problem, (f"mv {word} {word}.moved",))
    writable = () if mode & stat.S_IWUSR else (f"chmod u+w {word}",)
    text = read_regular(file, _LARGE_BYTES)
    if encoding := _encoding(text):
        problem = f"{shown} is {encoding[:6]} text, and git reads no rules from it."
        return FixTarget(path, problem, _rewritten(f"iconv -f {encoding} -t UTF-8", word))
    marked = [
        number
        for number, line in enumerate(text.split(b"\n"), 1)
        if line.startswith(_BYTE_ORDER_MARK)
    ]
    problem = ""
    if marked and marked[-1] > 1:  # at the start of the file git skips it
        problem = (
            f"Line {marked[-1]} of {shown} begins with a byte order mark, so git does not read "
            "its rule."
        )
    return FixTarget(path, problem, writable)


def _rewritten(command: str, word: str) -> tuple[str, ...]:
    new = f"{word}.new"  # next to a quoted word, it is part of it
    return (f"{command} {word} > {new}", f"mv {new} {word}")


def _encoding(text: bytes) -> str:
    """The encoding of text that is not UTF-8, as iconv calls it; empty for anything else."""
    for mark, name in _ENCODINGS:
        if text.startswith(mark):
            return name
    if b"\0" not in text:
        return ""
    return "UTF-16LE" if text[1:2] == b"\0" else "UTF-16BE"


def ignore(top: bytes, directory: bytes, target: FixTarget) -> str:
    """Adds the rule for a state directory to an ignore file, and commits that."""
    word, spec, call = file_from_here(top, target.path), pathspec(target.path), git_command(top)
    rule = os.fsdecode(rule_for(directory, os.path.dirname(target.path)))
    if target.is_here:
        steps = [*target.repair]
        sparse = ""
    else:
        sparse = _SPARSE
        index = git.quoted(f":{os.fsdecode(target.path)}")
        steps = [f"{call} show {index} > {word}"]
    file = join(top, target.path)
    has_text = not target.is_here or (os.path.isfile(file) and os.path.getsize(file) > 0)
    return " && ".join(
        [
            *steps,
            append_command(word, [rule], has_text=has_text),
            f"{call} add {sparse}-f -- {spec}",
            commit(top, "Ignore state", target.path),
        ]
    )


def append_command(word: str, lines: Sequence[str], *, has_text: bool) -> str:
    """The command that appends lines to a file. word: the file, quoted for the shell."""
    start = "\\n" if has_text else ""
    return f"printf '{start}%s\\n' {' '.join(map(git.quoted, lines))} >> {word}"


def commit_rules(top: bytes) -> str:
    """Commits the root's ignore file as it is."""
    step = f"{git_command(top)} add -f -- {pathspec(RULE_FILE)}"
    return f"{step} && {commit(top, 'Ignore state', RULE_FILE)}"


def rule_for(directory: bytes, base: bytes = b"") -> bytes:
    """The line that protects a state directory everywhere, in the ignore file of a folder.

    Without a slash at the end: such a rule would not match a link.
    """
    if directory.rpartition(b"/")[2] == NAME:
        return NAME
    inside = directory[len(base) + 1 :] if base else directory
    return b"/" + b"".join(_escaped(inside[at : at + 1]) for at in range(len(inside)))


def _escaped(byte: bytes) -> bytes:
    if byte in b"\r\n":  # a line cannot hold it
        return b"?"
    return b"\\" + byte if byte in b"\\*?[] !#" else byte


def append(path: bytes, rule: bytes) -> bool:
    """Adds a line to an ignore file, unless the file has it. Raises `OSError`."""
    # Not through a link: git does not read a linked ignore file, and the target is another's.
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    with open(os.open(path, flags, 0o666), "r+b") as stream:
        text = stream.read()
        if rule in text.splitlines():
            return False
        stream.write((b"\n" if text and not text.endswith(b"\n") else b"") + rule + b"\n")
    return True
