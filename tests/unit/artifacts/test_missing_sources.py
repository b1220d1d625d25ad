"""What a Dockerfile takes from its context, and the context lacks."""

from __future__ import annotations

from contextlib import nullcontext
from io import BytesIO
from pathlib import Path

import pytest

from bundler.artifacts.image.engine.arguments import parse
from bundler.artifacts.image.engine.building import preflight
from bundler.artifacts.image.engine.dockerbuild import Builder, BuildInput
from bundler.artifacts.image.engine.ignore import parse as ignore_rules
from bundler.artifacts.image.engine.missing_sources import missing_sources
from bundler.artifacts.image.engine.stdin_context import take
from bundler.errors import ConfigurationError, UsageError
from tests.support.pex_projects import write

_HERE = ("app/main.py", "app/secret.txt", "a file", "requirements.txt", "1.0/x")


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = write(tmp_path_factory.mktemp("context"), dict.fromkeys(_HERE, ""))
    (root / "link").symlink_to("/nowhere")
    return root


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("COPY app requirements.txt /x/", []),
        ("COPY . .\nADD ./app/ /app", []),
        ("COPY gone /x", ["gone"]),
        ("copy ../gone /x", ["gone"]),
        ('COPY ["a file", "b file", "/x/"]', ["b file"]),
        ("COPY --chown=1:1 --chmod=644 app \\\n  # a comment\n  gone /x/", ["gone"]),
        ("COPY --parents ./app/./gone /x", ["app/gone"]),
        ("COPY --exclude=*.md gone /x", ["gone"]),
        ("COPY gone*.txt g?ne [g]one /x/", []),
        ("COPY gone/*.txt /x/", ["gone"]),
        ("COPY app/./gone/m*/x.py /x/", ["app/gone"]),
        ('ADD ["gone/[ab]", "/x/"]', ["gone"]),
        ("COPY ap?/gone/x app/gone* ./*/x /x/", []),
        ("COPY gone/*.txt app /x/", []),
        ("COPY --parents gone/**/x /x/", []),
        ("ADD https://example.org/gone git@example.org:gone.git /x/", []),
        ("COPY <<EOF gone /x/\nCOPY missing /x\nEOF\nCOPY lost /x", ["gone", "lost"]),
        ("RUN <<EOF\nCOPY missing /x\nEOF", []),
        ("COPY 3<<EOF app /x/\nCOPY missing /x\nEOF", []),
        ("ONBUILD RUN <<EOF\nCOPY missing /x\nEOF", []),
        ("RUN <<EOF\n\tEOF\nCOPY missing /x\nEOF\nCOPY lost /x", ["lost"]),
        ("RUN echo '<<EOF'\nCOPY lost /x", ["lost"]),
        ("LABEL a='x\u2028COPY missing /x'", []),
        ("COPY link/x /x", []),
        ("COPY --from=other gone /x", []),
        ("ONBUILD COPY gone /x", []),
        ("RUN --mount=type=bind,source=gone,target=/x true", ["gone"]),
        ("RUN --mount=type=bind,from=other,source=gone,target=/x true", []),
        ("RUN --mount=type=cache,target=/x true", []),
        ("RUN --mount=type=bind,\\\nsource=gone,target=/x true", ["gone"]),
        ("COPY app/ma\\\nin.py gone\\ \n  lost /x", ["gone", "lost"]),
        ("ARG U=https://example.org/gone\nADD ${U} /x", []),
        ("ENV U=https://example.org H=example.org\nADD $U/gone https://$H/gone /x/", []),
        ("ENV U=git@example.org:gone.git V=me@example.org:gone\nADD $U $V /x/", []),
        ("ENV V=1.0\nCOPY $V/x /x", []),
        ("ENV V=2.0\nCOPY ${V}/x /x", ["2.0/x"]),
        ("ARG V=2.0\nCOPY ${V}/x ${W:-2.0}/x /x", []),
        ("ARG V=2.0\nENV W=$V X=gone\nCOPY ${W}/x ${W:-1}/x $X /x", ["gone"]),
        ("ARG GIVEN=app\nCOPY ${GIVEN} /x", []),
        ("ENV GIVEN=app\nARG GIVEN\nCOPY $GIVEN /x", []),
        ("ENV A=gone B=$A\nCOPY $B /x", []),
        ("ENV A gone\nCOPY $A ${A:-lost} /x", ["gone", "gone"]),
        ("ARG TARGETARCH\nCOPY $TARGETARCH $BASE ${V%x} /x", []),
    ],
)
def test_only_what_is_certain_is_missing(context: Path, text: str, found: list[str]) -> None:
    given = {"GIVEN": "from-the-command-line"}
    missing = [*missing_sources(context, f"FROM base\n{text}\n", given, [])]
    assert [each.path for each in missing] == found


@pytest.mark.parametrize(
    ("text", "contexts", "found"),
    [
        ("FROM scratch\nARG V=a\nCOPY $V ${W:-b} /x", [], []),
        ("FROM scratch\nARG GIVEN=a\nCOPY $GIVEN /x", [], []),
        ("FROM scratch AS one\nENV V=a\nFROM One\nARG W=c\nCOPY $V $W /x", [], ["a"]),
        ("FROM scratch AS one\nENV V=a\nFROM one\nARG V=b\nCOPY $V /x", [], []),
        ("ARG V=b\nFROM scratch\nENV V=a W=c\nARG V\nCOPY $V $W ${V:-d} /x", [], ["c"]),
        ("FROM scratch\nARG V=b\nENV V=a\nCOPY $V /x", [], ["a"]),
        ("FROM base AS one\nFROM one\nARG V=a\nCOPY $V /x", [], []),
        ("FROM scratch AS one\nENV V=a\nFROM one\nCOPY $V /x", ["one"], []),
        ("ARG B=One\nFROM scratch AS one\nENV V=a\nFROM $B\nCOPY $V /x", [], ["a"]),
        ("FROM scratch AS one\nENV V=a\nFROM ${TARGETARCH:-one}\nCOPY $V /x", [], []),
    ],
)
def test_the_value_of_an_arg_is_never_certain(
    context: Path, text: str, contexts: list[str], found: list[str]
) -> None:
    given = {"GIVEN": "from-the-command-line"}
    missing = [*missing_sources(context, text, given, [], contexts=contexts)]
    assert [each.path for each in missing] == found


@pytest.mark.parametrize(
    ("last", "found"),
    [
        ("COPY --from=x /a /b", ["gone"]),
        ("COPY --chown=1 --from=x /a /b", ["gone"]),
        ("RUN --mount=type=bind,from=x,target=/a true", ["gone"]),
        ("RUN pip install --from=x foo", []),
        ("RUN tool --mount=from=x", []),
        ("LABEL a=--from=x", []),
        ("COPY app /--from=x", []),
    ],
)
def test_a_stage_is_needed_where_docker_takes_from_it(
    context: Path, last: str, found: list[str]
) -> None:
    text = f"FROM base AS x\nCOPY gone /x\nFROM base\n{last}\n"
    assert [each.path for each in missing_sources(context, text, {}, [])] == found


_STAGES = """ARG FOLDER=gone
FROM scratch AS one
ENV INHERITED=lost
COPY in-one /x
FROM base AS unused
COPY in-unused /x
FROM one AS two
ARG FOLDER
ENV OWN=gone
COPY $FOLDER $OWN $INHERITED /x
FROM base
COPY --from=Two /x /x
COPY $FOLDER in-last /x
"""


@pytest.mark.parametrize(
    ("target", "contexts", "found"),
    [
        (None, [], ["in-one", "gone", "lost", "in-last"]),
        ("two", [], ["in-one", "gone", "lost"]),
        ("0", [], ["in-one"]),
        ("unused", [], ["in-unused"]),
        ("not-there", [], []),
        (None, ["Two"], ["in-last"]),
        (None, ["two:latest"], ["in-last"]),
        ("two", ["two"], []),
        ("0", ["one"], []),
        ("two", ["one"], ["gone"]),
    ],
)
def test_only_the_stages_that_are_built_count(
    context: Path, target: str | None, contexts: list[str], found: list[str]
) -> None:
    missing = [*missing_sources(context, _STAGES, {}, [], target=target, contexts=contexts)]
    assert [each.path for each in missing] == found


@pytest.mark.parametrize(
    ("rules", "found"),
    [
        ("app", ["app", "app/main.py"]),
        ("app\n!app/main.py", []),
        ("*.txt\n!requirements.txt", []),
        ("**", ["app", "app/main.py"]),
    ],
)
def test_what_is_ignored_is_missing(context: Path, rules: str, found: list[str]) -> None:
    text = "FROM base\nCOPY app /x\nCOPY app/main.py /y\nCOPY Dockerfile /z\n"
    missing = [*missing_sources(context, text, {}, ignore_rules(rules))]
    assert [each.path for each in missing if each.path != "Dockerfile"] == found
    assert all(each.is_excluded for each in missing if each.path != "Dockerfile")


@pytest.mark.parametrize(
    ("syntax", "found"),
    [("docker/dockerfile:1.7-labs", 1), ("docker.io/docker/dockerfile:1", 1), ("x/y:1", 0)],
)
def test_another_language_is_not_read(context: Path, syntax: str, found: int) -> None:
    text = f"# syntax={syntax}\nFROM base\nCOPY gone /x\n"
    assert len([*missing_sources(context, text, {}, [])]) == found


def test_a_build_says_which_folder_has_to_be_the_context(tmp_path: Path) -> None:
    project = tmp_path / "projects/shop"
    write(tmp_path, {"uv.lock": "", "projects/shop/dockerfile": "FROM base\nCOPY uv.lock /x\n"})
    with pytest.raises(
        ConfigurationError, match=r"dockerfile:2 uses uv\.lock from .*shop"
    ) as caught:
        preflight(BuildInput(parse([str(project)])))
    assert caught.value.hint.startswith(f"It is in {tmp_path}: pass that as the context")
    preflight(BuildInput(parse(["-f", str(project / "dockerfile"), str(tmp_path)])))


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("gone", "The context is gone, which is neither"),
        ("Dockerfile", "The context is Dockerfile, which is neither"),
        ("--build-context lib=gone .", "--build-context lib is gone, which is neither"),
        ("--secret id=a,src=gone .", "--secret a is gone, which does not exist"),
        ("--secret type=file,id=a,source=gone .", "--secret a is gone"),
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


def test_a_dockerfile_on_stdin_is_held_against_its_context(tmp_path: Path) -> None:
    write(tmp_path, {"uv.lock": "", ".dockerignore": "*.lock", "Dockerfile.dockerignore": ""})
    arguments = parse(["-f", "-", str(tmp_path)])
    with (
        take(arguments, BytesIO(b"FROM base\nCOPY uv.lock /x\n")) as piped,
        pytest.raises(ConfigurationError, match=r"Dockerfile:2 uses uv.lock .*\.dockerignore"),
    ):
        preflight(BuildInput(arguments, piped))


def test_a_build_argument_without_a_value_is_that_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = parse(["--build-arg", "V", "--build-arg=W=", str(tmp_path)])
    monkeypatch.delenv("V", raising=False)
    assert BuildInput(arguments).build_args == {"W": ""}
    monkeypatch.setenv("V", "given")
    assert BuildInput(arguments).build_args == {"V": "given", "W": ""}


@pytest.mark.parametrize(
    ("ignore_file", "kind", "is_refused"),
    [
        ("Dockerfile.dockerignore", "buildx", True),
        ("Dockerfile.dockerignore", "buildkit", True),
        ("Dockerfile.dockerignore", "classic", False),
        ("Dockerfile.dockerignore", None, False),
        (".dockerignore", "classic", True),
        (".dockerignore", None, True),
    ],
)
def test_only_buildkit_reads_a_dockerfiles_own_ignore_file(
    ignore_file: str, kind: str | None, is_refused: bool, tmp_path: Path
) -> None:
    write(tmp_path, {"uv.lock": "", "Dockerfile": "FROM base\nCOPY uv.lock /x\n"})
    (tmp_path / ignore_file).write_text("*.lock\n")
    detected = None if kind is None else lambda: Builder(kind, "")
    given = BuildInput(parse([str(tmp_path)]), detected=detected)
    if is_refused:
        with pytest.raises(ConfigurationError, match=f"{ignore_file} excludes it"):
            preflight(given)
    else:
        preflight(given)
