"""Copies of state under other names: renamed, with other line ends, or as a pointer to Git LFS.

What is compared are object ids, so that no file of the repository is read. Contents that say
nothing (``{}``, ``null``, blanks) are nobody's copy. Dagster's dbt component copies the project,
which is in the repository by right, into its state: of such a copy only what dbt made is ours.
"""

from __future__ import annotations

import os

from bundler import git
from bundler.guard.state_paths import join, takeable
from bundler.guard.verdict import GuardFinding
from bundler.system import digests
from bundler.system.fast_tuple import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

_TELLING_BYTES = 16
_STEP_BYTES = 1 << 18
# git lists the sizes of an index's blobs in the time in which this many times its bytes are hashed.
# With them a state is only hashed for a blob of its size: 18 ms less for 10 MB, 1.7 s for 1 GB.
_SIZES_COST = 50
# What git looks at to tell a binary file, of which it converts no line ends.
# https://git-scm.com/docs/gitattributes#_text
_LOOKED_AT_BYTES = 8000
# https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md
_POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:%s\nsize %d\n"

_HOW = {"raw": "", "lf": " with other line endings", "crlf": " with other line endings"}


class CopiedState(NamedTuple):
    """The state file that a blob is a copy of, and how the copy was altered."""

    state: bytes
    how: str


class _Forms(NamedTuple):
    """The sizes of a file as it is, with LF alone and with CRLF alone."""

    raw: int
    lf: int
    crlf: int


def copies(
    repository: git.Repository, directories: Sequence[bytes], sizes: Collection[int] | None = None
) -> dict[bytes, CopiedState]:
    """Object id -> what it is, for every form of every state file on disk.

    sizes: of the blobs that are in question; a state file that fits none is not read.
    """
    return _copies_of(repository, _state_files(repository.top or b"", directories), sizes)


def _copies_of(
    repository: git.Repository, paths: Iterable[bytes], sizes: Collection[int] | None
) -> dict[bytes, CopiedState]:
    top = repository.top or b""
    known: dict[bytes, CopiedState] = {}
    for path in paths:
        for oid, how in _ids(repository, join(top, path), sizes):
            known.setdefault(oid, CopiedState(path, how))
    return known


def _state_files(top: bytes, directories: Iterable[bytes]) -> Iterator[bytes]:
    for directory in directories:
        if not os.path.isdir(join(top, directory)):
            continue
        for path in takeable(top, directory):
            key, _, rest = path[len(directory) + 1 :].partition(b"/")
            is_dbt_source = rest.startswith(b"project/") and not rest.startswith(b"project/target/")
            marker = join(join(top, directory), key) + b"/state"
            if is_dbt_source and os.path.isfile(marker) and os.path.getsize(marker) == 0:
                continue
            is_file = os.path.isfile(join(top, path)) and not os.path.islink(join(top, path))
            if rest and is_file and not key.startswith(b"@"):
                yield path


def _ids(
    repository: git.Repository, path: bytes, sizes: Collection[int] | None
) -> Iterator[tuple[bytes, str]]:
    size = os.path.getsize(path)
    if size < _TELLING_BYTES or not _is_possible(size, sizes):
        return
    forms = _forms(path)
    if forms is None:
        return
    # Forms of the same size are the same: the first one's name is taken.
    distinct = {size: form for form, size in reversed(forms._asdict().items())}
    plain = [form for size, form in distinct.items() if sizes is None or size in sizes]
    pointed = [
        form for size, form in distinct.items() if sizes is None or _pointer_size(size) in sizes
    ]
    for form, oid, sha256 in _digests(path, repository.algorithm, forms, plain, pointed):
        if oid:
            yield oid, _HOW[form]
        if sha256:
            pointer = _POINTER % (sha256, getattr(forms, form))
            yield git.object_id(repository, b"blob", pointer), " as a Git LFS pointer"


def _pointer_size(size: int) -> int:
    """The size in bytes of the LFS pointer to a file of this size."""
    return len(_POINTER % (b"0" * 64, size))


def _is_possible(size: int, sizes: Collection[int] | None) -> bool:
    """Whether a blob of one of these sizes can be a form of a file of this size."""
    if sizes is None:
        return True
    pointers = range(_pointer_size(size // 2), _pointer_size(2 * size) + 1)
    return any((size <= 2 * each and each <= 2 * size) or each in pointers for each in sizes)


def _steps(path: bytes) -> Iterator[bytes]:
    """The file's bytes in chunks that never split a CRLF."""
    with open(path, "rb") as stream:
        rest = b""
        while step := stream.read(_STEP_BYTES):
            step = rest + step
            rest = b"\r" if step.endswith(b"\r") else b""
            yield step[: len(step) - len(rest)]
        yield rest


def _forms(path: bytes) -> _Forms | None:
    """None if the content is empty of meaning, such as ``{}``."""
    size = pairs = feeds = telling = 0
    with open(path, "rb") as stream:
        if b"\0" in stream.read(_LOOKED_AT_BYTES):
            size = os.path.getsize(path)
            return _Forms(size, size, size)
    for step in _steps(path):
        size += len(step)
        if b"\r" in step:  # looked for in a tenth of the time of two characters
            pairs += step.count(b"\r\n")
        feeds += step.count(b"\n")
        if telling < _TELLING_BYTES:
            telling += len(b"".join(step.split()))
    if telling < _TELLING_BYTES:
        return None
    return _Forms(size, size - pairs, size - pairs + feeds)


def _digests(
    path: bytes, algorithm: str, forms: _Forms, plain: Sequence[str], pointed: Sequence[str]
) -> Iterator[tuple[str, bytes, bytes]]:
    """For each form the object id where it is one of `plain`, and the sha256 that an LFS pointer
    would name where it is one of `pointed`; empty if it is not.
    """
    if not plain and not pointed:
        return
    hashers = {form: digests.new(algorithm, getattr(forms, form)) for form in plain}
    for form, hasher in hashers.items():
        hasher.update(b"blob %d\0" % getattr(forms, form))
    contents = {form: digests.new("sha256", getattr(forms, form)) for form in pointed}
    for step in _steps(path):
        texts = {"raw": step}
        if {*plain, *pointed} != {"raw"}:
            texts["lf"] = step.replace(b"\r\n", b"\n")
            texts["crlf"] = texts["lf"].replace(b"\n", b"\r\n")
        for hashing in (hashers, contents):
            for form, hasher in hashing.items():
                hasher.update(texts[form])
    for form in dict.fromkeys([*plain, *pointed]):
        oid = hashers[form].hexdigest().encode() if form in hashers else b""
        yield form, oid, contents[form].hexdigest().encode() if form in contents else b""


# --- where copies are -----------------------------------------------------------------------


def copied_in_changes(
    repository: git.Repository, changes: Sequence[git.StagedChange], directories: Sequence[bytes]
) -> list[tuple[git.StagedChange, CopiedState]]:
    """The changes that add a copy of a current state file."""
    oids = sorted({change.oid for change in changes if change.mode.startswith(b"100")})
    if not oids:
        return []
    known = copies(repository, directories, _sizes(repository, oids))
    return [(change, known[change.oid]) for change in changes if change.oid in known]


def copied_in_index(
    repository: git.Repository, directories: Sequence[bytes]
) -> list[tuple[bytes, CopiedState]]:
    """The paths in the index that hold a copy of a current state file."""
    top = repository.top or b""
    paths = list(_state_files(top, directories))
    size = sum(os.path.getsize(join(top, path)) for path in paths)
    is_large = size > _SIZES_COST * git.index_bytes(repository)
    known = _copies_of(repository, paths, _sizes_in_index(repository) if is_large else None)
    if not known or not (repository.is_partial or git.sizes(repository, sorted(known))):
        return []  # no such object was ever added: nothing to look for
    entries = git.in_index(repository)
    return [(entry.path, known[entry.oid]) for entry in entries if entry.oid in known]


def _sizes_in_index(repository: git.Repository) -> set[int] | None:
    return _sizes(repository, sorted({entry.oid for entry in git.in_index(repository)}))


def _sizes(repository: git.Repository, oids: Sequence[bytes]) -> set[int] | None:
    """The sizes of blobs; None if this clone may lack some of them."""
    lacking = repository.is_partial
    return None if lacking else set(git.sizes(repository, oids).values())


def finding(path: bytes, copy: CopiedState, where: str, fix: str) -> GuardFinding:
    """What is said about a copy. where: the end of the message, as "is in the index"."""
    return GuardFinding(
        "fail",
        "state-copy",
        os.fsdecode(path),
        f"{git.printable(path)} {where} and is a copy{copy.how} "
        f"of the state file {git.printable(copy.state)}.",
        "State under another name is still state: it leaks and goes stale.",
        fix,
    )
