"""Checks the states beside this file against their manifest, before the program starts.

It is put beside the manifest as ``@verify.py`` and needs nothing but Python:

    python .local_defs_state/@verify.py                       # an init container: exit 0 or 76
    python .local_defs_state/@verify.py dagster api grpc …    # an entrypoint: check, then become it

Files below a path that the manifest declares writable may change and come and go; everything else
must be there, be what the manifest says, and be all there is.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys

TYPE_CHECKING = False  # typing itself would cost a third of the run
if TYPE_CHECKING:
    from typing import Any

MANIFEST = "@manifest.json"
# Ours, but not part of what ships; an artifact that a plain copy filled may hold them.
NOT_SHIPPED = ("@run.json", "@staging")
FAILED = 76
_BUFFER_BYTES = 256 * 1024


def problems(directory: str) -> list[str]:
    """Everything in a state directory that is not as its manifest says, as sentences."""
    path = os.path.join(directory, MANIFEST)
    try:
        with open(path, "rb") as stream:
            predicate = _predicate(stream.read())
        expected, writable = _expected(predicate)
    except OSError as error:
        return [f"{path} cannot be read: {error.strerror}."]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        return [f"{path} is not a valid manifest: {type(error).__name__}."]
    return _compare(directory, expected, writable)


def _predicate(raw: bytes) -> dict[str, Any]:
    """The statement's predicate. Raises `ValueError` for what is not wholly consistent."""
    predicate: dict[str, Any] = json.loads(raw)["predicate"]
    statement = {
        "_type": "https://in-toto.io/Statement/v1",
        "predicateType": "https://state-bundler.io/state-bundle/v1",
        "predicate": predicate,
        "subject": [
            {"digest": {"dirHash": _dir_hash(state["files"])}, "name": state["key"]}
            for state in predicate["contents"]["states"]
        ],
    }
    if (
        _canonical(statement) != raw
        or _digest(b"state-bundle-contents/v1", predicate["contents"]) != predicate["contentDigest"]
        or _digest(b"state-bundle-support/v1", predicate["support"]) != predicate["supportDigest"]
    ):
        raise ValueError(raw)
    return predicate


def _dir_hash(files: list[dict[str, str]]) -> str:
    lines = sorted((file["path"].encode(), file["sha256"].encode()) for file in files)
    return hashlib.sha256(b"".join(b"%s  %s\n" % (sha, path) for path, sha in lines)).hexdigest()


def _digest(domain: bytes, value: object) -> str:
    return hashlib.sha256(domain + b"\0" + _canonical(value)).hexdigest()


def _canonical(value: object) -> bytes:
    # All names in a manifest are ASCII and all numbers integers: there this is RFC 8785.
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return text.encode()


def _expected(predicate: dict[str, Any]) -> tuple[dict[str, tuple[str, int]], tuple[str, ...]]:
    files = {file["path"]: (file["sha256"], file["size"]) for file in predicate["support"]}
    writable = []
    for state in predicate["contents"]["states"]:
        below = state["path"] + "/"
        writable += [below + path for path in state.get("writable", [])]
        for file in state["files"]:
            files[below + file["path"]] = (file["sha256"], file["size"])
    return files, tuple(writable)


def _compare(
    directory: str, expected: dict[str, tuple[str, int]], writable: tuple[str, ...]
) -> list[str]:
    found = []
    missing = {path for path in expected if not _is_below(path, writable)}
    for path in _walk(directory, ""):
        if path == MANIFEST or path in NOT_SHIPPED or _is_below(path, writable):
            continue
        missing.discard(path)
        if path not in expected:
            found.append(f"{path} is not in the manifest.")
        elif not _is_same(os.path.join(directory, path), *expected[path]):
            found.append(f"{path} is not what the manifest says.")
    return found + [f"{path} is missing." for path in sorted(missing)]


def _walk(directory: str, below: str) -> list[str]:
    """Paths of everything below that is not a directory; links are not followed."""
    paths = []
    with os.scandir(os.path.join(directory, below)) as listing:
        for child in sorted(listing, key=lambda child: child.name):
            path = f"{below}/{child.name}" if below else child.name
            if child.is_dir(follow_symlinks=False) and path not in NOT_SHIPPED:
                paths += _walk(directory, path)
            else:
                paths.append(path)
    return paths


def _is_below(path: str, parents: tuple[str, ...]) -> bool:
    return any(path == parent or path.startswith(parent + "/") for parent in parents)


def _is_same(path: str, sha256: str, size: int) -> bool:
    if os.path.islink(path) or not os.path.isfile(path) or os.path.getsize(path) != size:
        return False
    digest = hashlib.sha256()
    try:
        with open(path, "rb", buffering=0) as stream:
            while chunk := stream.read(_BUFFER_BYTES):
                digest.update(chunk)
    except OSError:
        return False
    return digest.hexdigest() == sha256


def main(arguments: list[str]) -> int:
    directory = os.path.dirname(os.path.abspath(__file__))
    found = problems(directory)
    for problem in found:
        print(f"state-bundler: {directory}: {problem}", file=sys.stderr)  # noqa: T201  # a script
    if found:
        return FAILED
    if arguments:
        os.execvp(arguments[0], arguments)  # noqa: S606  # to become the program is the point
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
