"""What a build reads on this machine."""

from __future__ import annotations

import os
from contextlib import nullcontext
from pathlib import Path

import pytest

from bundler.artifacts.image.engine.arguments import parse
from bundler.artifacts.image.engine.building import preflight
from bundler.artifacts.image.engine.dockerbuild import Builder, BuildInput
from bundler.artifacts.image.engine.ignore import effective
from bundler.errors import InputOutputError, UsageError
from tests.support.pex_projects import write


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("missing", "The context is missing, which is neither"),
        ("Dockerfile", "The context is Dockerfile, which is neither"),
        ("--build-context lib=missing .", "--build-context lib is missing, which is neither"),
        ("--secret id=a,src=missing .", "--secret a is missing, which does not exist"),
        ("--secret type=file,id=a,source=missing .", "--secret a is missing"),
        ("--secret id=a --secret id=b,env=B --secret type=env,id=c,src=C .", ""),
        ("--secret id=a,src=Dockerfile .", ""),
        ("--build-context a=docker-image://x --build-context=b=../ .", ""),
        ("--build-context a=git@example.org:x.git --build-context b=oci-layout:///x .", ""),
        ("https://example.org/shop.git#main:sub", ""),
        ("github.com/acme/shop", ""),
        ("me@example.org:shop", ""),
    ],
)
def test_what_docker_would_not_find_here_is_refused(
    words: str, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(write(tmp_path, {"Dockerfile": "FROM base\n"}))
    with pytest.raises(UsageError, match=sentence) if sentence else nullcontext():
        preflight(BuildInput(parse(words.split())))


def test_a_build_argument_without_a_value_is_that_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = parse(["--build-arg", "V", "--build-arg=W=", str(tmp_path)])
    monkeypatch.delenv("V", raising=False)
    assert BuildInput(arguments).build_args == {"W": ""}
    monkeypatch.setenv("V", "given")
    assert BuildInput(arguments).build_args == {"V": "given", "W": ""}


@pytest.mark.parametrize(
    ("own", "kind", "read"),
    [
        (True, "buildx", "Dockerfile.dockerignore"),
        (True, "buildkit", "Dockerfile.dockerignore"),
        (True, "classic", ".dockerignore"),
        (True, None, None),
        (False, "classic", ".dockerignore"),
        (False, None, ".dockerignore"),
    ],
)
def test_only_buildkit_reads_a_dockerfiles_own_ignore_file(
    kind: str | None, read: str | None, tmp_path: Path, *, own: bool
) -> None:
    write(tmp_path, {"Dockerfile": "", **({"Dockerfile.dockerignore": ""} if own else {})})
    detected = None if kind is None else lambda: Builder(kind, "")
    given = BuildInput(parse([str(tmp_path)]), detected=detected)
    assert given.ignore_file == (tmp_path / read if read else None)


@pytest.mark.parametrize("name", [".dockerignore", "Dockerfile.dockerignore"])
def test_ignore_rules_that_are_no_file(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(InputOutputError, match=f"{name} cannot be read: it is not a regular file"):
        effective(tmp_path, tmp_path / "Dockerfile")
