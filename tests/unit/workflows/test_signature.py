"""Signatures by the real ssh-keygen, and the predicates that are attested. A few seconds."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from bundler.artifacts.open import open_artifact
from bundler.artifacts.verify import verify
from bundler.errors import Findings, ToolFailed, UsageError
from bundler.state.bundle import Bundle
from bundler.state.directory import DirectoryArtifact
from bundler.state.manifest import Build, RunRecord
from bundler.workflows import attestation, signature
from tests.support import forked
from tests.support.bundles import make_bundle, make_record
from tests.support.embedding import embed_layout, embed_wheel
from tests.support.pex_projects import wheel


def _key(path: Path) -> Path:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True)
    return path


@pytest.fixture
def key(tmp_path: Path) -> Path:
    return _key(tmp_path / "key")


@pytest.fixture
def allowed(tmp_path: Path, key: Path) -> Path:
    path = tmp_path / "allowed_signers"
    public = key.with_suffix(".pub").read_text()
    path.write_text(f'ci@example.org namespaces="{signature.NAMESPACE}" {public}')
    return path


def _bundle(root: Path, text: bytes = b"[1]") -> Bundle:
    return make_bundle(root / "shop/defs/.local_defs_state", {"Shop": {"state": text}})


def _statement(name: str) -> bytes:
    with open_artifact(name) as artifact:
        verdict = verify(artifact)
        assert verdict.all_problems == ()
        return signature.statement(artifact, verdict)


def _artifact(kind: str, folder: Path, text: bytes = b"[1]") -> str:
    """An artifact with this state, always under the same name in the folder."""
    shutil.rmtree(folder, ignore_errors=True)
    bundle = _bundle(folder / "project", text)
    record = make_record(bundle)
    if kind == "directory":
        return str(folder / "project")
    if kind == "wheel":
        made = wheel(folder)
        embed_wheel(made, [bundle], record, made)
        return str(made)
    embed_layout(None, [bundle], record, folder / "layout")
    return f"oci:{folder}/layout:latest"


NAME = "./a state.pex"
_KINDS = ["directory", "wheel", "oci"]


@pytest.mark.parametrize("kind", _KINDS)
def test_the_signature_of_an_artifact_is_good_until_it_changes(
    kind: str, tmp_path: Path, key: Path, allowed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")  # an image records when it was made
    name = _artifact(kind, tmp_path / "a")
    made = tmp_path / "made.sig"
    signature.sign(_statement(name), key, made)
    assert signature.check(_statement(name), made, allowed, NAME) == "ci@example.org"
    assert signature.check(_statement(_artifact(kind, tmp_path / "a")), made, allowed, NAME)
    newer = _statement(_artifact(kind, tmp_path / "a", b"[2]"))
    with pytest.raises(Findings, match="changed after signing"):
        signature.check(newer, made, allowed, NAME)


def test_another_run_record_is_another_statement(tmp_path: Path) -> None:
    bundle = _bundle(tmp_path)
    before = _statement(str(bundle.root))
    record = bundle.root / "@run.json"
    record.write_bytes(b'{"_type":"https://state-bundler.io/run-record/v1"}')
    assert _statement(str(bundle.root)) != before


def test_a_key_that_is_not_allowed_is_refused(tmp_path: Path, allowed: Path) -> None:
    signature.sign(b"x", _key(tmp_path / "other"), tmp_path / "x.sig")
    with pytest.raises(Findings, match="does not allow"):
        signature.check(b"x", tmp_path / "x.sig", allowed, NAME)


def test_a_public_key_is_not_a_list_of_signers(tmp_path: Path, key: Path) -> None:
    signature.sign(b"x", key, tmp_path / "x.sig")
    with pytest.raises(Findings, match="invalid key") as failed:
        signature.check(b"x", tmp_path / "x.sig", key.with_suffix(".pub"), NAME)
    assert "a name and a public key" in failed.value.hint


@pytest.mark.parametrize(
    ("option", "reason"),
    [
        ('valid-before="20200101"', "key has expired"),
        ('valid-after="20990101"', "key is not yet valid"),
        ('valid-after="soon"', 'invalid "valid-after" time'),
    ],
)
def test_a_key_that_is_not_allowed_now_is_refused_with_the_reason(
    tmp_path: Path, key: Path, allowed: Path, option: str, reason: str
) -> None:
    allowed.write_text(f"ci@example.org {option} {key.with_suffix('.pub').read_text()}")
    signature.sign(b"x", key, tmp_path / "x.sig")
    with pytest.raises(Findings, match=f"does not allow .*allowed_signers:1: .*{reason}"):
        signature.check(b"x", tmp_path / "x.sig", allowed, NAME)


@pytest.mark.parametrize("what", ["the key", "the allowed signers", "a signature by gpg"])
def test_signing_replaces_no_other_file(
    tmp_path: Path, key: Path, allowed: Path, what: str
) -> None:
    other = tmp_path / "app.pex.sig"
    other.write_bytes(b"\x89\x02\x33")
    path = {"the key": key, "the allowed signers": allowed}.get(what, other)
    before = path.read_bytes()
    with pytest.raises(UsageError, match="signing would replace it"):
        signature.sign(b"x", key, path)
    assert path.read_bytes() == before


def test_signing_replaces_a_signature_and_an_empty_file(
    tmp_path: Path, key: Path, allowed: Path
) -> None:
    path = tmp_path / "x.sig"
    path.touch()
    for message in (b"1", b"2"):
        signature.sign(message, key, path)
        assert signature.check(message, path, allowed, NAME) == "ci@example.org"


def test_a_signature_for_another_purpose_is_refused(
    tmp_path: Path, key: Path, allowed: Path
) -> None:
    """As git makes them: the same key, the same bytes, another namespace."""
    allowed.write_text(f"ci@example.org {key.with_suffix('.pub').read_text()}")
    (tmp_path / "x").write_bytes(b"x")
    argv = ["ssh-keygen", "-q", "-Y", "sign", "-f", key, "-n", "git", tmp_path / "x"]
    subprocess.run(argv, check=True)
    with pytest.raises(Findings, match="another purpose"):
        signature.check(b"x", tmp_path / "x.sig", allowed, NAME)


def test_a_missing_or_damaged_signature_is_refused(
    tmp_path: Path, key: Path, allowed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(NAME).touch()
    with pytest.raises(Findings, match="no signature at") as raised:
        signature.check(b"x", tmp_path / "x.sig", allowed, NAME)
    where = shlex.quote(str(tmp_path / "x.sig"))
    assert raised.value.hint.endswith(f"sign './a state.pex' --ssh-key KEY --signature {where}")
    signature.sign(b"x", key, tmp_path / "x.sig")
    text = (tmp_path / "x.sig").read_text()
    (tmp_path / "x.sig").write_text(text.replace(text[80:90], "AAAAAAAAAA"))
    with pytest.raises(Findings):
        signature.check(b"x", tmp_path / "x.sig", allowed, NAME)


def test_what_is_not_a_key_cannot_sign(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not a key"):
        signature.sign(b"x", tmp_path / "none", tmp_path / "x.sig")
    (tmp_path / "none").write_text("x")
    with pytest.raises(ToolFailed, match="could not sign"):
        signature.sign(b"x", tmp_path / "none", tmp_path / "x.sig")
    assert not (tmp_path / "x.sig").exists()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("oci:build/image", "build/image.sig"),
        ("oci:build/image:1.4", "build/image.1.4.sig"),
        ("registry.example.org/shop:1.4", "registry.example.org_shop_1.4.sig"),
        ("docker-daemon:shop:1.4", "docker-daemon_shop_1.4.sig"),
    ],
)
def test_where_a_signature_is(name: str, expected: str) -> None:
    assert signature.sidecar(name) == Path(expected)


def test_where_the_signature_of_a_path_is(tmp_path: Path) -> None:
    (tmp_path / "app.pex").touch()
    assert signature.sidecar(str(tmp_path / "app.pex")) == tmp_path / "app.pex.sig"
    assert signature.sidecar(f"{tmp_path}/") == tmp_path.with_name(f"{tmp_path.name}.sig")


def _cli(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    return forked.said("state-bundler", *arguments, cwd=cwd, env={**os.environ, "NO_COLOR": "1"})


def test_sign_and_verify_as_a_user_does(tmp_path: Path, key: Path, allowed: Path) -> None:
    _bundle(tmp_path / "app")
    assert _cli("sign", "app", "--ssh-key", key, cwd=tmp_path).stdout == "app.sig\n"
    good = _cli("verify", "app", "--signed-by", allowed, cwd=tmp_path)
    assert (good.returncode, good.stderr) == (0, "")
    assert "signed by ci@example.org" in good.stdout
    shutil.rmtree(tmp_path / "app")
    _bundle(tmp_path / "app", b"[2]")
    bad = _cli("verify", "app", "--signed-by", allowed, "--require", "Gone", cwd=tmp_path)
    assert (bad.returncode, bad.stdout) == (1, "")
    assert "There is no state for Gone." in bad.stderr
    assert "does not match this artifact" in bad.stderr


# --- predicates ---------------------------------------------------------------------------------


def _verdict(tmp_path: Path, record: RunRecord | None = None):  # type: ignore[no-untyped-def]  # noqa: ANN202
    bundle = _bundle(tmp_path)
    if record is not None:
        from bundler.state.manifest import canonical

        (bundle.root / "@run.json").write_bytes(canonical(record))
    with DirectoryArtifact(tmp_path) as artifact:
        return verify(artifact), bundle


def test_the_predicate_is_the_manifests(tmp_path: Path) -> None:
    verdict, bundle = _verdict(tmp_path)
    statement = json.loads(bundle.manifest.raw)
    assert json.loads(attestation.predicate(verdict)) == statement["predicate"]


def test_of_several_state_directories_one_is_named(tmp_path: Path) -> None:
    make_bundle(tmp_path / "a/.local_defs_state", {"A": {"state": b"1"}})
    make_bundle(tmp_path / "b/.local_defs_state", {"B": {"state": b"2"}})
    with DirectoryArtifact(tmp_path) as artifact:
        verdict = verify(artifact)
    with pytest.raises(UsageError) as caught:
        attestation.predicate(verdict)
    assert "a/.local_defs_state, b/.local_defs_state" in caught.value.hint
    reported = json.loads(attestation.predicate(verdict, "b/.local_defs_state"))
    assert reported["contents"]["states"][0]["key"] == "B"


def test_the_states_and_the_code_are_resolved_dependencies(tmp_path: Path) -> None:
    from google.protobuf.json_format import ParseDict
    from in_toto_attestation.predicates.provenance.v1.provenance_pb2 import Provenance

    build = Build(commit="a" * 40, dirty=False, remote="https://example.org/shop.git", guarded=True)
    verdict, bundle = _verdict(tmp_path, RunRecord(build=build, environment="prod"))
    reported = json.loads(attestation.slsa(verdict))
    ParseDict(reported, Provenance())  # a name that SLSA does not have is refused
    code, state = reported["buildDefinition"]["resolvedDependencies"]
    assert code["uri"] == f"git+https://example.org/shop.git@{'a' * 40}"
    assert code["digest"] == {"gitCommit": "a" * 40}
    assert state["name"] == "Shop"
    assert state["digest"] == {"dirHash": bundle.manifest.states[0].digest.dir_hash}
