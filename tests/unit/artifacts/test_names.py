"""Names of artifacts: what they mean, that they survive being written down, and hostile ones."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bundler.artifacts.names import ArtifactName
from bundler.artifacts.open import open_artifact
from bundler.errors import UsageError
from bundler.workflows.embed import target_name

DIGEST = f"sha256:{'0' * 64}"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with what names can mean: files, layouts, names with colons."""
    monkeypatch.chdir(tmp_path)
    for folder in ("team", "build/image", "build/a:b", "plain"):
        (tmp_path / folder).mkdir(parents=True)
    for name in ("app.pex", "states.tar", "ghcr.io:1", "build/image/oci-layout", "host.example"):
        (tmp_path / name).write_text("")
    return tmp_path


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("app.pex", ("path", "app.pex")),
        ("./plain", ("path", "./plain")),
        ("ghcr.io:1", ("path", "ghcr.io:1")),
        ("build/image", ("layout", "build/image")),
        ("oci:build/image", ("layout", "build/image")),
        ("oci:build/image:1.4", ("layout", "build/image", "1.4")),
        ("oci://build/image:1.4", ("layout", "build/image", "1.4")),
        ("oci:build/a:b", ("layout", "build/a:b")),
        ("oci:build/a:b:c", ("layout", "build/a:b", "c")),
        ("oci:new:er/place", ("layout", "new:er/place")),
        ("oci:///absolute", ("layout", "/absolute")),
        ("docker-daemon:shop", ("engine", "shop")),
        ("docker-daemon:host:5000/shop:1", ("engine", "host:5000/shop", "1")),
        (f"docker-daemon:{DIGEST}", ("engine", "sha256", "0" * 64)),
        ("docker://ghcr.io/acme/shop", ("registry", "ghcr.io/acme/shop")),
        (f"docker://a.b/c:1@{DIGEST}", ("registry", "a.b/c", "1", DIGEST)),
        ("store:", ("store", "")),
        ("store:s3://bucket/x@41", ("store", "s3://bucket/x@41")),
        ("shop:1.4", ("image", "shop", "1.4")),
        ("team/shop:1.4", ("image", "team/shop", "1.4")),
        ("[::1]:5000/a", ("image", "[::1]:5000/a")),
    ],
)
def test_a_name_says_what_and_where(text: str, parts: tuple[str, ...]) -> None:
    name = ArtifactName.parse(text)
    assert name == ArtifactName(*parts)  # type: ignore[arg-type]
    assert ArtifactName.parse(str(name)) == name


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not a valid"),
        (" ", "not a valid"),
        ("oci:", "OCI layout"),
        ("oci::1.4", "OCI layout"),
        ("oci:build/image:", "OCI layout"),
        ("oci:build/image:a b", "OCI layout"),
        ("oci:build/image:\x1b[2J", "OCI layout"),
        ("docker://", "not a valid"),
        ("docker-daemon:", "not a valid"),
        ("docker-daemon:../containers/json", "not a valid"),
        ("docker-daemon:shop?all=1", "not a valid"),
        *((f"docker://{host}/shop", "not a valid") for host in ("a..b", "a.b.", "a.-b", "a-.b")),
        ("docker-daemon:shop\n", "not a valid"),
        ("docker://docker://shop", "not a valid"),
        ("docker://ghcr.io/shop:1@sha256:short", "not a valid"),
        ("docker://user:secret@ghcr.io/shop", "not a valid"),
        ("https://ghcr.io/acme/shop:1", "not a valid"),
        ("https://me:secret@ghcr.io/acme/shop@sha256:1", "not a valid"),
        ("docker-daemon:secret@ghcr.io/shop", "not a valid"),
        ("Shop:1", "not a valid"),
        ("--tag", "not a valid"),
        ("$(touch x)", "not a valid"),
        ("a\0b", "not a valid"),
        ("a" * 5000, "not a valid"),
        ("no.pex", "does not exist"),
        ("./shop", "does not exist"),
        ("~/shop", "does not exist"),
        ("../shop", "does not exist"),
        ("team/shop.yaml", "does not exist"),
        ("/nowhere/x", "does not exist"),
        ("app.pex/inside.pex", "does not exist"),
    ],
)
def test_an_invalid_name_is_refused_before_anything_is_asked(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        open_artifact(text)
    assert caught.value.hint
    assert "secret" not in caught.value.what
    assert caught.value.what.isprintable()


def test_the_url_of_a_store_gets_the_hint_how_a_store_is_named() -> None:
    with pytest.raises(UsageError) as caught:
        open_artifact("s3://bucket/prefix")
    assert caught.value.hint == "Put store: before the URL of a store."


def test_a_pipe_is_refused_and_not_waited_for(here: Path) -> None:
    os.mkfifo(here / "pipe")
    with pytest.raises(UsageError, match="neither a file nor a folder"):
        open_artifact("pipe")


PIECES = ["oci:", "docker://", "docker-daemon:", "store:", "/", "//", ":", "@", "..", ".", "~", " ",
          "build", "image", "a:b", "team", "app.pex", "ghcr.io", "localhost:5000", "shop", "1.4",
          "latest", "sha256", DIGEST, "oci-layout", "A", "-", "_", "é", "\u202e", "\n"]  # fmt: skip
NAMES = st.text(max_size=40) | st.lists(st.sampled_from(PIECES), max_size=7).map("".join)


@given(NAMES)
@example("oci:////x")
@example("oci:build/a:b:")
@example("oci:oci:x")
@example("docker://docker://x")
@example("docker-daemon:a@sha256")
def test_a_name_means_the_same_when_it_is_written_down(text: str) -> None:
    try:
        name = ArtifactName.parse(text)
    except UsageError:
        return
    assert ArtifactName.parse(str(name)) == name
    if name.kind in ("engine", "registry", "image"):  # nothing that steers a URL or a terminal
        assert name.image.isascii()
        assert not set(name.image) & set(" ?#%&\\\n\t\"'")
        assert ".." not in name.image.split("/")


@given(
    NAMES, st.sampled_from(["oci:build/image:1", "docker://a.b/c:1", f"docker-daemon:a@{DIGEST}"])
)
def test_a_tag_stays_next_to_its_image(tag: str, text: str) -> None:
    name = ArtifactName.parse(text)
    try:
        other = name.tagged(tag)
    except UsageError:
        return
    assert (other.kind, other.name, other.tag, other.digest) == (name.kind, name.name, tag, None)
    assert ArtifactName.parse(str(other)) == other


@pytest.mark.parametrize(
    ("text", "first", "target"),
    [
        ("1.5", "docker://ghcr.io/acme/shop:1.4", "docker://ghcr.io/acme/shop:1.5"),
        ("1.5", f"docker://ghcr.io/acme/shop@{DIGEST}", "docker://ghcr.io/acme/shop:1.5"),
        ("1.5", "docker-daemon:host:5000/shop", "docker-daemon:host:5000/shop:1.5"),
        ("1.5", "oci:build/image", "oci:build/image:1.5"),
        ("acme/shop:1", "docker://ghcr.io/acme/shop", "docker://acme/shop:1"),
        ("acme/shop:1", None, "docker://acme/shop:1"),
        ("acme/shop:1", "docker-daemon:shop", "docker-daemon:acme/shop:1"),
        ("ghcr.io/shop:1", "docker-daemon:shop", "docker://ghcr.io/shop:1"),
        ("oci:out:1", "docker-daemon:shop", "oci:out:1"),
        ("states.tar", None, None),
        ("latest", None, None),
        ("out/new.tar", None, None),
        ("a b", "docker-daemon:shop", None),
        ("store:x", None, None),
    ],
)
def test_where_an_image_goes(text: str, first: str | None, target: str | None) -> None:
    source = None if first is None else ArtifactName.parse(first)
    if target is None:
        with pytest.raises(UsageError):
            target_name(text, source)
    else:
        assert str(target_name(text, source)) == target
