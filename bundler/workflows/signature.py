"""Signatures with a tool that everybody has: ``ssh-keygen -Y``, in our own namespace.

What is signed is a canonical in-toto Statement that is computed from the artifact each time: the
digest of the artifact as a whole, of each manifest in it, and of its run record. So a signature of
another artifact, or of an earlier state of this one, does not match.

The signature is next to the artifact as ``<artifact>.sig`` or, for an image in a registry, there:
as a manifest that refers to the image. Allowed signers are a file in the format of
``ssh-keygen(1)``, ALLOWED SIGNERS.
"""

from __future__ import annotations

import hashlib
import re
import shlex
import stat
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, cast

from bundler.artifacts.names import ArtifactName
from bundler.artifacts.open import open_artifact
from bundler.artifacts.python.trees import walk_folder
from bundler.artifacts.verify import Verdict, verify
from bundler.errors import Findings, InputOutputError, ToolFailed, UsageError
from bundler.state.artifact import Artifact
from bundler.state.manifest import STATEMENT_TYPE, Model, canonical
from bundler.state.tree import File, dir_hash, hash_file
from bundler.system import process
from bundler.system.atomic import io_errors, save
from bundler.workflows.policy import Breach, Policy, judge, subject_of

if TYPE_CHECKING:
    from bundler.artifacts.image.ociread import OciImage
    from bundler.artifacts.image.registry import RegistryStore

NAMESPACE = "artifact@state-bundler.io"
PREDICATE_TYPE = "https://state-bundler.io/signed-artifact/v1"
_KEYGEN = "ssh-keygen"
_SIGNERS = "Each of its lines is a name and a public key, such as: ci@example.org ssh-ed25519 AAAA…"
_WHO_SIGNED = "Find out who signed it and whether to trust that key."
# The types of a signature in a registry: of the referring manifest and of its only blob.
ARTIFACT_TYPE = "application/vnd.state-bundler.signature.v1"
_MEDIA_TYPE = "application/vnd.state-bundler.ssh-signature"
_MAX_SIGNATURE_BYTES = 64 * 1024
_ARMOR = b"-----BEGIN SSH SIGNATURE-----"


class _SignedState(Model, frozen=True):
    path: str
    content_digest: str
    manifest: str


class _Signed(Model, frozen=True):
    """run_record: the sha256 of the canonical record; None if there is none."""

    states: tuple[_SignedState, ...]
    run_record: str | None = None


class _SignedSubject(Model, frozen=True):
    name: str
    digest: dict[str, str]


class _SignedStatement(Model, frozen=True, tag_field="_type", tag=STATEMENT_TYPE):
    subject: tuple[_SignedSubject, ...]
    predicate_type: str
    predicate: _Signed


def statement(artifact: Artifact, verdict: Verdict) -> bytes:
    """The bytes that are signed: the same for the same artifact, whatever its name.

    verdict: of a valid artifact.
    """
    states = tuple(
        _SignedState(item.path, item.manifest.content_digest, item.manifest.sha256)
        for item in verdict.directories
        if item.manifest
    )
    record = verdict.record
    signed = _Signed(states, hashlib.sha256(canonical(record)).hexdigest() if record else None)
    subjects = _subjects(artifact) or tuple(
        _SignedSubject(state.path, {"sha256": state.manifest}) for state in states
    )
    return canonical(_SignedStatement(subjects, PREDICATE_TYPE, signed))


def _subjects(artifact: Artifact) -> tuple[_SignedSubject, ...]:
    """The artifact by the digest of all its bytes; a plain directory only by its manifests'."""
    if artifact.kind == "directory":
        return ()
    if artifact.digest is not None:
        algorithm, _, value = artifact.digest.partition(":")
        # The same image keeps its signature when it is copied from a layout to a registry.
        kind = "oci" if artifact.kind == "registry" else artifact.kind
        return (_SignedSubject(kind, {algorithm: value}),)
    path = Path(artifact.name)
    if path.is_dir():
        return (_SignedSubject(artifact.kind, {"dirHash": _folder_hash(path)}),)
    return (_SignedSubject(artifact.kind, {"sha256": _file_hash(path)}),)


def _folder_hash(root: Path) -> str:
    """The ``dirHash`` of a PEX that is a folder.

    Raises `VerificationFailed` for a link: its target would run without being covered.
    """
    return dir_hash(
        File(path, _file_hash(root / path), 0)
        for path, status in walk_folder(root)
        if stat.S_ISREG(status.st_mode)
    )


def _file_hash(path: Path) -> str:
    with io_errors(path):
        return hash_file(path)[0]


def sidecar(name: str) -> Path:
    """The path of an artifact's signature: next to it, or here for one that is not a file."""
    parsed = ArtifactName.parse(name)
    if parsed.kind in ("path", "layout"):
        path = parsed.path if parsed.path.name not in ("", "..") else parsed.path.resolve()
        return path.with_name(f"{path.name}.{parsed.tag}.sig" if parsed.tag else f"{path.name}.sig")
    return Path(re.sub(r"[^A-Za-z0-9._-]+", "_", name) + ".sig")


def sign_artifact(name: str, key: Path, destination: Path | None) -> str:
    """Verifies an artifact and signs it. Returns where its signature is.

    destination: None for the default place, which is its registry for an image there.
    """
    with open_artifact(name) as artifact, tempfile.TemporaryDirectory() as folder:
        verdict = verify(artifact)
        verdict.raise_for_problems()
        message = statement(artifact, verdict)
        if artifact.kind == "registry" and destination is None:
            made = Path(folder) / "statement.sig"
            sign(message, key, made)
            return attach(cast("OciImage", artifact), made)
        target = destination or sidecar(name)
        sign(message, key, target)
        return str(target)


def attach(artifact: OciImage, signature: Path) -> str:
    """Stores a signature next to an image in a registry; returns its name there."""
    from bundler.artifacts.image.registry import RegistryTarget, referrers

    store = cast("RegistryStore", artifact.store)
    with io_errors(signature):
        content = signature.read_bytes()
    target = RegistryTarget(store.reference, connection=store.connection)
    digest = referrers.attach(target, artifact.entry, ARTIFACT_TYPE, content, _MEDIA_TYPE)
    return store.reference.at(digest).artifact


def check_attached(message: bytes, artifact: OciImage, allowed: Path) -> str:
    """The signer of an image in a registry: of the first signature there that `check` accepts.

    Raises `Findings` if there is none, or none is valid: as `check` does for the last.
    """
    from bundler.artifacts.image.registry import referrers

    store = cast("RegistryStore", artifact.store)
    failure = Findings(
        f"The registry has no signature for {artifact.name}.",
        hint=_sign_it(artifact.name),
    )
    with tempfile.TemporaryDirectory(prefix="state-bundler-") as folder:
        path = Path(folder) / "attached.sig"
        for content in referrers.contents(
            store, artifact.entry, ARTIFACT_TYPE, _MAX_SIGNATURE_BYTES
        ):
            path.write_bytes(content)
            try:
                return check(message, path, allowed, artifact.name)
            except Findings as error:
                named = error.what.replace(f" {path}", "")
                failure = Findings(f"{named} (in the registry)", hint=error.hint)
    raise failure


def sign(message: bytes, key: Path, destination: Path) -> None:
    """Signs with a private key, or with its public half if an agent has the private one.

    ssh-keygen may ask for a passphrase on the terminal. Raises `ToolFailed` if it cannot sign.
    """
    if not key.is_file():
        raise UsageError(f"{key} is not a key.", hint="Create one: ssh-keygen -t ed25519 -f KEY")
    _refuse_to_replace(destination)
    with tempfile.TemporaryDirectory(prefix="state-bundler-") as folder:
        file = Path(folder) / "statement"
        file.write_bytes(message)
        argv = [_KEYGEN, "-q", "-Y", "sign", "-f", str(key), "-n", NAMESPACE, str(file)]
        made = file.with_name("statement.sig")
        if process.pass_through(argv) or not made.exists():
            raise ToolFailed(
                f"{_KEYGEN} could not sign with {key}.",
                hint="Add the key to an agent (ssh-add) and pass its public key.",
            )
        with io_errors(destination):
            save(destination, made.read_bytes())


def _refuse_to_replace(path: Path) -> None:
    """Raises `UsageError` for a file that is not a signature: the key, the artifact, another's."""
    if not path.is_file():
        return
    with io_errors(path), open(path, "rb") as stream:
        start = stream.read(len(_ARMOR))
    if start not in (b"", _ARMOR):
        raise UsageError(
            f"{path} is not an SSH signature, and signing would replace it.",
            hint="Choose another path with --signature.",
        )


def judged(
    artifact: Artifact,
    verdict: Verdict,
    policy: Policy,
    *,
    allowed: Path | None,
    signature: Path | None,
    name: str,
) -> tuple[tuple[Breach, ...], str | None]:
    """What a valid artifact violates of the policy, and its signer if `allowed` names some.

    signature, name: see `signer_of`.
    """
    breaches = judge(policy, subject_of(policy, artifact, verdict, time.time()))
    if allowed is None:
        return breaches, None
    signer, unsigned = signer_of(artifact, verdict, allowed, signature, name)
    return (*breaches, *unsigned), signer


def signer_of(
    artifact: Artifact, verdict: Verdict, allowed: Path, signature: Path | None, name: str
) -> tuple[str | None, tuple[Breach, ...]]:
    """The signer of a verified artifact, or why it counts as unsigned.

    signature: None for the default place, which is its registry for an image there. name: as the
    user gave it.
    """
    message = statement(artifact, verdict)
    try:
        if artifact.kind == "registry" and signature is None:
            return check_attached(message, cast("OciImage", artifact), allowed), ()
        return check(message, signature or sidecar(name), allowed, name), ()
    except Findings as error:
        return None, (Breach("signature", error.what, hint=error.hint),)


def check(message: bytes, signature: Path, allowed: Path, name: str) -> str:
    """The signer of the artifact with this name: a principal of the allowed signers.

    Raises `Findings` if the signature is missing, of another artifact or an older state of it, made
    for another purpose, or by somebody who is not allowed.
    """
    if not allowed.is_file():
        raise InputOutputError(
            f"The allowed signers file {allowed} "
            f"{'is not a file' if allowed.exists() else 'does not exist'}.",
            hint=_SIGNERS,
        )
    if not signature.is_file():
        raise Findings(
            f"There is no signature at {signature}.",
            hint=_sign_it(name, signature),
        )
    found = _keygen("find-principals", "-s", signature, "-f", allowed)
    principals = found.stdout.decode(errors="replace").split("\n")[:-1]
    if found.exit_code or not principals:
        # Such as a key that has expired: lines of the form FILE:LINE: reason.
        said = found.stderr.decode(errors="replace").splitlines()
        reasons = "; ".join(line for line in said if line.startswith(f"{allowed}:"))
        raise Findings(
            f"The signature {signature} was made with a key that {allowed} does not allow"
            f"{f' ({reasons})' if reasons else ''}.",
            hint=_SIGNERS if "invalid key" in reasons else _WHO_SIGNED,
        )
    for principal in principals:
        options = ("-f", allowed, "-I", principal, "-n", NAMESPACE, "-s", signature)
        if not _keygen("verify", *options, stdin=message).exit_code:
            return principal
    raise Findings(
        f"The signature {signature} by {principals[0]} does not match this artifact: the artifact "
        "changed after signing, the signature belongs to another or older artifact, or it was "
        "made for another purpose.",
        hint="Do not use the artifact before you know why. If it was rebuilt, sign it again.",
    )


def _sign_it(name: str, signature: Path | None = None) -> str:
    elsewhere = signature is not None and signature != sidecar(name)
    where = f" --signature {shlex.quote(str(signature))}" if elsewhere else ""
    return f"Sign it: state-bundler sign {shlex.quote(name)} --ssh-key KEY{where}"


def _keygen(verb: str, *arguments: str | Path, stdin: bytes | None = None) -> process.Completed:
    return process.run([_KEYGEN, "-Y", verb, *map(str, arguments)], stdin=stdin)
