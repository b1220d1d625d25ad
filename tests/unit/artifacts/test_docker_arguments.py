"""docker's command line, ignore rules and Dockerfiles, as far as we read them."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bundler.artifacts.image.engine.arguments import (
    Arguments,
    output_of,
    parse,
    split_options,
    split_own,
)
from bundler.artifacts.image.engine.baking import Baking
from bundler.artifacts.image.engine.baking import asks as bake_asks
from bundler.artifacts.image.engine.baking import preflight as bake_preflight
from bundler.artifacts.image.engine.building import preflight, refuse_missing_configuration
from bundler.artifacts.image.engine.connection import Docker
from bundler.artifacts.image.engine.context import ClassicContext, shown, withheld_rules
from bundler.artifacts.image.engine.dockerbuild import Builder, BuildInput, detect
from bundler.artifacts.image.engine.dockerfile import (
    instructions,
    needing_buildkit,
    refreshing,
)
from bundler.artifacts.image.engine.ignore import excluded, quoted
from bundler.artifacts.image.engine.ignore import parse as parse_rules
from bundler.artifacts.image.engine.outputs import check
from bundler.artifacts.image.engine.stdin_context import Piped
from bundler.artifacts.reference import split
from bundler.errors import ConfigurationError, UsageError
from bundler.project.projects import open_project
from tests.support.bundles import PLACE, make_bundle
from tests.support.environments import ROOT


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (".", Arguments()),
        ("-t a -t=b -tc --tag d --tag=e .", Arguments(tags=("a", "b", "c", "d", "e"))),
        ("-f x/Dockerfile dir", Arguments(file="x/Dockerfile", context="dir")),
        ("-q --push --load .", Arguments(quiet=True, push=True, load=True)),
        ("--push=false --quiet=true .", Arguments(quiet=True)),
        ("--iidfile i --metadata-file=m .", Arguments(iidfile="i", metadata_file="m")),
        ("-o type=tar,dest=x .", Arguments(outputs=("type=tar,dest=x",))),
        (
            "--build-arg A=1 --no-cache . --target=t",
            Arguments(forwarded=("--build-arg", "A=1", "--no-cache", "--target=t"), target="t"),
        ),
        (
            "--platform linux/amd64,linux/arm64 --new-thing=1 --newer -",
            Arguments(
                forwarded=("--platform", "linux/amd64,linux/arm64", "--new-thing=1", "--newer"),
                platforms=("linux/amd64", "linux/arm64"),
                context="-",
            ),
        ),
        ("-qD --label=-t https://x/y.git#main", Arguments(
            forwarded=("-D", "--label=-t"), quiet=True, context="https://x/y.git#main")),
        ("-qta .", Arguments(quiet=True, tags=("a",))),
        ("-qDt=a -Df=F .", Arguments(
            forwarded=("-D", "-D"), quiet=True, tags=("a",), file="F")),
        ("-Dq=false --push=F .", Arguments(forwarded=("-D",))),
        ('-o type=image,"name=a,b" -o type=docker,name=a .', Arguments(
            outputs=('type=image,"name=a,b"', "type=docker,name=a"))),
        ("-t c -o type=image,name=a .", Arguments(
            tags=("c",), outputs=("type=image,name=a",))),
        ("-t a -- -odd-folder", Arguments(tags=("a",), context="-odd-folder")),
        ("--help", Arguments(forwarded=("--help",))),
    ],
)  # fmt: skip
def test_a_command_line_is_taken_apart(line: str, expected: Arguments) -> None:
    assert parse(line.split()) == expected


@pytest.mark.parametrize(
    ("line", "asks"),
    [
        ("--check", True), ("--check=T", True), ("--call check", True), ("--print", True),
        ("--print=outline", True), ("--call=outline --check=0", True),
        ("", False), ("--check=FALSE", False), ("--check --check=f", False),
        ("--call build", False), ("--print=False", False),
    ],
)  # fmt: skip
def test_a_build_that_is_only_described(line: str, *, asks: bool) -> None:
    """What only asks goes to docker as it is; a build would give the image its names."""
    assert parse([*line.split(), "."]).asks == asks
    assert bake_asks([*line.split(), "app"]) == asks
    assert bake_asks([*line.split(), "--list", "targets"])


@pytest.mark.parametrize(
    "line", ["", "a b", "-t", ". --build-arg", "--push=yes .", "--load= .", "-q=on ."]
)
def test_a_command_line_that_docker_would_refuse(line: str) -> None:
    with pytest.raises(UsageError):
        parse(line.split())


@pytest.mark.parametrize(
    "line",
    ["--push .", "-o type=cacheonly .", "-o type=tar .", "-o type=oci .", "-o type=registry .",
     "-t a -o type=image,push-by-digest=true,push=true .", "-t a -o type=image,push-by-digest=T .",
     "-t a -o type=image,push=yes .", "-o type=image,push=1 .",
     "-o dest=x .", "-o dest=x --push --load .", "-o a=b -t a --load .", f"-t {'0' * 64} .",
     "-t sha256:1 .", "-t Shop .", "-t shop:1:2 .", "-t shop/ .", "-t shop:-1 ."],
)  # fmt: skip
def test_what_cannot_be_done_with_a_finished_image_is_said(line: str) -> None:
    with pytest.raises(UsageError):
        check(parse(line.split()))


@pytest.mark.parametrize(
    ("line", "in_engine", "pushed", "everywhere"),
    [
        ("", "", "", ""),
        ("-t a -t b", "a b", "", "a b"),
        ("-t a --push", "a", "a", "a"),
        ('-o type=image,"name=a,b" -o type=docker,name=a', "a b", "", "a b"),
        *((f"-o type={kind},name=a --push", "a", "a", "a") for kind in ("image", "registry")),
        *((f"-o type={kind},dest=f,name=a", "", "", "a") for kind in ("docker", "oci")),
        *((f"-t a -o type={kind},dest=f", "", "", named) for kind, named in (
            ("docker", "a"), ("oci", "a"), ("tar", ""), ("local", ""))),
        ("-t a -o folder", "", "", ""),
        ("-t a --load -o type=docker,dest=f", "", "", "a"),
        ("-t a --load -o type=oci,dest=f", "a", "", "a"),
        ("-o type=docker,dest=f,name=a --load", "", "", "a"),
        ("-o type=docker,dest=f,name=a -o type=docker,name=b", "b", "", "a b"),
        ("-o type=oci,dest=f,name=a -o type=registry,name=b", "b", "b", "a b"),
        ("-o type=docker,name=a -o type=image,name=b,push=true", "a b", "b", "a b"),
        ("-t c -o type=docker,dest=f,name=a -o type=registry,name=b", "c", "c", "c"),
    ],
)  # fmt: skip
def test_each_output_gives_its_own_names(
    line: str, in_engine: str, pushed: str, everywhere: str
) -> None:
    found = parse([*line.split(), "."])
    assert found.names == tuple(in_engine.split())
    assert found.names_of(found.pushed) == tuple(pushed.split())
    check(found)
    assert found.image_name == everywhere.replace(" ", ",")


def test_how_an_image_is_exported_is_passed_on() -> None:
    shape = 'compression=zstd,"annotation.a=b,c",force-compression=1'
    for line in (f"-o type=oci,dest=f,{shape}", f"-o type=registry,{shape} --push -o folder"):
        found = parse(["-t", "a", *line.split(), "."])
        check(found)
        assert output_of({"type": "oci", **found.shape}) == f"type=oci,{shape}"
    with pytest.raises(UsageError, match="differ in how the image is compressed"):
        check(parse(["-t", "a", "--push", "-o", f"type=oci,dest=f,{shape}", "."]))


@pytest.mark.parametrize("line", ["--push", "--push -o type=docker,name=a", "-o type=registry"])
def test_what_is_pushed_needs_a_name(line: str) -> None:
    with pytest.raises(UsageError, match="requires a name"):
        check(parse([*line.split(), "."]))


@pytest.mark.parametrize(
    ("output", "pushes"),
    [
        ("type=registry", True), ("type=image,push=true", True), ("type=image,push=1", True),
        ("type=image,push=T", True), ("type=image,push=0", False), ("type=image", False),
    ],
)  # fmt: skip
def test_an_output_that_pushes(output: str, *, pushes: bool) -> None:
    assert bool(parse(["-t", "a", "-o", output, "."]).pushed) == pushes


_WORDS = st.sampled_from(
    ["-t", "x", "--build-arg", "A=1", "--no-cache", "-q", "--pull", "--label=l", "."]
)
_OURS = st.sampled_from([["--refresh", "never"], ["--refresh=missing"], ["--no-guard"]])


@given(st.lists(_WORDS, max_size=6), st.lists(_OURS, max_size=3), st.booleans())
def test_ours_are_taken_out_and_theirs_stay_in_order(
    theirs: list[str], ours: list[list[str]], in_plugin: bool
) -> None:
    prefix = "--bundle-" if in_plugin else "--"
    takes_value = {"--refresh": True, "--no-guard": False}
    given_words = [word.replace("--", prefix, 1) for words in ours for word in words]
    mixed = [*given_words, *theirs]
    mine, rest = split_own(mixed, takes_value, prefix)
    assert mine == [word for words in ours for word in words]
    assert rest == theirs
    after = split_own([".", "--", *given_words], takes_value, prefix)
    assert after == ([], [".", *given_words])


def test_a_value_of_dockers_that_looks_like_ours_stays_dockers() -> None:
    words = ["--build-arg", "--refresh", "--label", "--no-guard", "."]
    assert split_own(words, {"--refresh": True, "--no-guard": False}) == ([], words)


def test_global_options_come_first() -> None:
    words = ["--context", "x", "-H=tcp://h", "--tls", "-c", "y", "bundle", "build", "-t", "a"]
    assert split_options(words) == (tuple(words[:6]), words[6:])


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("app", ("app", None, None)),
        ("app:1", ("app", "1", None)),
        ("host:5000/team/app", ("host:5000/team/app", None, None)),
        ("host:5000/app:2", ("host:5000/app", "2", None)),
    ],
)
def test_a_name_has_a_repository_and_a_tag(
    name: str, parts: tuple[str, str | None, str | None]
) -> None:
    assert split(name) == parts


# --- ignore rules ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rules", "out", "kept"),
    [
        ("*.log", ["a.log"], ["b/a.log", "a.logs"]),
        ("**/*.log", ["a.log", "b/c/a.log"], ["a.txt"]),
        ("build", ["build", "build/x/y"], ["rebuild", "b/build"]),
        ("/build/", ["build", "build/x"], ["b/build"]),
        ("build/**", ["build/x", "build/x/y"], ["build"]),
        ("a/**/z", ["a/z", "a/b/z", "a/b/c/z"], ["a/zz", "z"]),
        ("a?c", ["abc"], ["a/c", "ac"]),
        ("[a-c].txt", ["b.txt"], ["d.txt"]),
        ("*\n!keep\n!d/e", ["x", "d/f"], ["keep", "d/e"]),
        ("d\n!d/e\nd/e/f", ["d/x", "d/e/f"], ["d/e", "d/e/g"]),
        ("# comment\n\\#odd\n\n  spaced  ", ["#odd", "spaced"], ["# comment"]),
        ("**/.*", [".git", "a/.x", ".git/config"], ["a.b"]),
        (".", [], ["a"]),
        ("a.b+c(d)$", ["a.b+c(d)$"], ["aXb+c(d)$"]),
        ("\ufefffirst", ["first"], []),
    ],
)
def test_rules_mean_what_docker_means_by_them(rules: str, out: list[str], kept: list[str]) -> None:
    parsed = parse_rules(rules)
    assert [path for path in out if not excluded(path, parsed)] == []
    assert [path for path in kept if excluded(path, parsed)] == []


def test_a_rule_that_docker_refuses_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="Line 2"):
        parse_rules("fine\n[a")


_FILE_NAMES = st.one_of(st.binary(min_size=1), st.text(min_size=1).map(str.encode))


@given(st.sampled_from(["", "dir/"]), _FILE_NAMES)
def test_a_quoted_path_matches_itself_alone(folder: str, raw: bytes) -> None:
    name = raw.replace(b"/", b"").decode("utf-8", "surrogateescape")
    if name in ("", ".", ".."):
        return
    rule = quoted(f"{folder}{name}")
    rules = parse_rules(rule.encode().decode())
    assert excluded(f"{folder}{name}", rules)
    assert excluded(f"{folder}{name}/below", rules)
    assert not excluded(f"{folder}{name}x", rules)


_IN_ANOTHER_ENCODING = """
import os, sys
from pathlib import Path
from bundler.artifacts.image.engine.dockerbuild import Dockerfile, with_rules
from bundler.artifacts.image.engine.ignore import effective, parse, quoted, walk
root, folder = map(Path, sys.argv[1:])
assert sys.getfilesystemencoding() != "utf-8"
names = [name for name, _ in walk(root, parse(effective(root, None)))]
with_rules(root, Dockerfile("Dockerfile", b"FROM x"), [quoted(names[-1])], folder)
"""


def test_rules_are_written_in_utf_8_whatever_the_locale(tmp_path: Path) -> None:
    root, folder = tmp_path / "root", tmp_path / "folder"
    (root / "geheim-ä").mkdir(parents=True)
    (root / "geheim-ä/key").touch()
    (root / "ö.env").touch()
    (root / ".dockerignore").write_bytes("geheim-ä/\n".encode())
    folder.mkdir()
    environ = {**os.environ, "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    argv = [sys.executable, "-c", _IN_ANOTHER_ENCODING, root, folder]
    subprocess.run(argv, env=environ, check=True)
    written = (folder / "Dockerfile.dockerignore").read_bytes().decode()
    assert written == "geheim-ä/\nö.env\n"


# --- the context ----------------------------------------------------------------------------


def names_in(context: ClassicContext) -> set[str]:
    archive = io.BytesIO()
    context.write(archive)
    archive.seek(0)
    with tarfile.open(fileobj=archive) as opened:
        return set(opened.getnames())


def test_the_state_and_dbts_leftovers_are_withheld(tmp_path: Path) -> None:
    files = ("src/shop/defs/x.py", "wh/dbt_project.yml", "wh/target/a", "wh/logs/b", "wh/models/c",
             "other/dbt_project.yml", "other/target/d", "Dockerfile")  # fmt: skip
    for path in files:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(path)
    states = {"Dbt": {"state": b"", "project/dbt_project.yml": b"wh/dbt_project.yml"}}
    bundle = make_bundle(tmp_path / "src" / PLACE, states)
    withheld = withheld_rules(tmp_path, [bundle])
    context = ClassicContext(tmp_path, "!**", withheld, tmp_path / "Dockerfile", b"")
    found = {name for name in names_in(context) if (tmp_path / name).is_file()}
    assert found == set(files) - {"wh/target/a", "wh/logs/b"}


def test_a_named_context_that_contains_the_state_is_reported(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "src/shop/defs/.local_defs_state", {"Key": {"state": b"x"}})
    (tmp_path / "other").mkdir()
    words = ["--build-context", f"code={tmp_path}", f"--build-context=o={tmp_path / 'other'}",
             "--build-context", "image=docker-image://alpine", "."]  # fmt: skip
    (said,) = shown(parse(words), [bundle])
    line = "src/shop/defs/.local_defs_state"
    assert said == (
        f"--build-context code contains {line}: new state will invalidate the cache. "
        f"Add that path to {tmp_path / '.dockerignore'}."
    )
    (tmp_path / ".dockerignore").write_text(f"{line}\n")
    assert list(shown(parse(words), [bundle])) == []


def test_a_dockerfile_from_elsewhere_does_not_stay_in_the_context(tmp_path: Path) -> None:
    context = tmp_path / "context"
    context.mkdir()
    (context / "a").touch()
    made = ClassicContext(context, "", withheld_rules(context, []), tmp_path / "other", b"FROM x\n")
    archive = io.BytesIO()
    made.write(archive)
    archive.seek(0)
    with tarfile.open(fileobj=archive) as opened:
        assert set(opened.getnames()) == {"a", made.dockerfile, ".dockerignore"}
        ignored = opened.extractfile(".dockerignore")
        assert ignored is not None
        assert made.dockerfile in ignored.read().decode().split()


# --- Dockerfiles ----------------------------------------------------------------------------


def test_instructions_with_their_lines() -> None:
    text = (
        "# escape=\\\nFROM a AS b\n\nRUN one \\\n  # a comment inside\n  && two\n"
        "COPY <<EOF /x\nRUN not an instruction\nEOF\ncmd run\n"
    )
    found = [(item.line, item.name) for item in instructions(text)]
    assert found == [(2, "FROM"), (4, "RUN"), (7, "COPY"), (10, "CMD")]


def test_directives_end_with_the_first_line_that_is_not_one() -> None:
    text = "# check=skip=one, two\n# escape=`\nRUN a `\n  b\nCMD c\\\nUSER d\n"
    assert [item.name for item in instructions(text)] == ["RUN", "CMD", "USER"]
    assert [item.name for item in instructions(f"# a comment\n{text}")][:2] == ["RUN", "B"]


def test_a_refresh_in_a_run_is_warned_of() -> None:
    text = "FROM x\nRUN a && \\\n  dg utils refresh-defs-state\nRUN echo\n"
    (sentence,) = refreshing(text, "Dockerfile")
    assert sentence.startswith("Dockerfile:2 ")


@pytest.mark.parametrize(
    ("instruction", "needs"),
    [
        ("RUN --mount=type=cache,target=/c uv sync", True),
        ("RUN --network=none --mount=type=secret,id=x true", True),
        ("RUN --security=insecure true", True),
        ("RUN <<EOF\necho hello\nEOF", True),
        ("RUN cat <<'EOF' > /x\necho hello\nEOF", True),
        ("COPY <<EOF /etc/x\nhello\nEOF", True),
        ("COPY --link src /app", True),
        ("copy --from=build --chmod=755 /x /y", True),
        ("COPY --chown=app --link src /app", True),
        ("COPY --exclude=*.md . /app", True),
        ("ADD --checksum=sha256:00 https://example.org/x /", True),
        ("COPY --from=build --chown=1000:1000 /x /y", False),
        ("RUN pip install --no-cache-dir --link .", False),
        ("RUN echo 'COPY --link'", False),
        ("# syntax=docker/dockerfile:1", False),
        ("LABEL x='RUN --mount'", False),
    ],
)
def test_what_only_buildkit_understands(instruction: str, *, needs: bool) -> None:
    found = needing_buildkit(f"FROM x\n{instruction}\n")
    assert (found is not None) == needs
    assert found is None or found.line == 2


@pytest.mark.parametrize(
    "copied", [f"COPY src/{PLACE} /x", f'ADD ["src/{PLACE}/", "/x"]', f"copy --link {PLACE} /"]
)
def test_a_copied_state_is_refused_by_line(copied: str, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(f"FROM x\nCOPY --from=y /{PLACE} /z\n{copied}\n")
    with pytest.raises(ConfigurationError, match="Dockerfile:3 copies"):
        preflight(BuildInput(parse([str(tmp_path)])))


def test_a_target_of_bake_is_built_from_its_contexts_and_the_target_that_is_its_base(
    tmp_path: Path,
) -> None:
    for name in ("code", "tool", "shared", "web"):
        (tmp_path / name).mkdir()

    def target(folder: str, dockerfile: str, **contexts: str) -> dict[str, object]:
        where = folder if "://" in folder else str(tmp_path / folder)
        return {"context": where, "dockerfile-inline": dockerfile, "contexts": contexts}

    copied = f"FROM scratch\nCOPY {PLACE} /app\n"
    targets = {
        "base": target("code", copied),
        "app": target("tool", "FROM base", base="target:base", s=str(tmp_path / "shared")),
        "web": target("web", "FROM scratch\nCOPY --from=base / /", base="target:base"),
        "far": target("https://127.0.0.1/far.git", "FROM scratch"),
    }
    baking = Baking(Docker(), {"target": targets}, ("app", "web", "far"), ())
    found = {name: [path.name for path in baking.folders(name)] for name in baking.final}
    assert found == {"app": ["tool", "shared", "code"], "web": ["web"], "far": []}
    assert baking.built_from(["web"]) == ("web", "base")
    for name in ("app", "web"):  # both see what the base copies
        with pytest.raises(ConfigurationError, match="copies"):
            bake_preflight(baking, [name])


@pytest.mark.parametrize(
    ("ignored", "dockerfile", "missing"),
    [
        ("*.toml\n", "COPY . .", "pyproject.toml"),
        ("*.toml\n!pyproject.toml\n", "COPY . .", None),
        ("*.toml\n", "COPY --from=other /pyproject.toml .", None),
        ("*.toml\n", "RUN printf x > dg.toml", None),
        ("*.toml\n", "COPY <<EOF dg.toml\nx\nEOF", None),
        ("*.toml\n", "COPY pyproject.toml .", "pyproject.toml"),
        ("*\n!dist\n", "COPY dist/*.whl /wheels/", None),
        ("*\n!src\n", "COPY src /app/src", "pyproject.toml"),
        ("", "COPY . .", None),
    ],
)
def test_a_context_without_dagster_s_configuration_is_refused(
    ignored: str, dockerfile: str, missing: str | None, tmp_path: Path
) -> None:
    (tmp_path / "pyproject.toml").write_text('[tool.dg.project]\nroot_module = "shop"\n')
    (tmp_path / "Dockerfile").write_text(f"FROM x\n{dockerfile}\n")
    (tmp_path / ".dockerignore").write_text(ignored)
    (tmp_path / "src").mkdir()
    (tmp_path / "dist").mkdir()
    text = (tmp_path / "Dockerfile").read_bytes()
    piped = Piped(io.BytesIO(text), is_archive=False)
    target = {"context": str(tmp_path), "dockerfile-inline": text.decode()}
    baked = {"app": target, "file": {"context": str(tmp_path)}}
    baking = Baking(Docker(), {"target": baked}, ("app", "file"), ())
    project = open_project(tmp_path)
    by_stdin = BuildInput(parse(["-f-", str(tmp_path)]), piped)
    ways: list[Callable[[], None]] = [
        lambda: refuse_missing_configuration(BuildInput(parse([str(tmp_path)])), tmp_path),
        lambda: refuse_missing_configuration(by_stdin, tmp_path),
        lambda: bake_preflight(baking, ["app"], [project]),
        lambda: bake_preflight(baking, ["file"], [project]),
    ]
    for way in ways:
        if missing is None:
            way()
            continue
        # One that is copied by name is found before.
        with pytest.raises(ConfigurationError, match=f"(excludes|uses) {missing} from"):
            way()


def test_an_alias_decides_what_builds_and_one_that_starts_us_again_is_refused(
    tmp_path: Path,
) -> None:
    program = tmp_path / "docker"
    environment = {"DOCKER_CONFIG": str(tmp_path), "DOCKER_BUILDKIT": "0"}
    for version, alias, kind in (
        *(("20.10.24", "", "classic"), ("20.10.24", "buildx", "buildx")),
        *(("28.2.2", "", "classic"), ("28.2.2", "buildx", "classic")),
    ):
        program.write_text(f"#!/bin/sh\necho Docker version {version}, build e6534b4\n")
        program.chmod(0o755)
        (tmp_path / "config.json").write_text(f'{{"aliases": {{"builder": "{alias}"}}}}')
        docker = Docker(str(program), (), environment)
        assert detect(docker) == Builder(kind, version)
    (tmp_path / "config.json").write_text('{"aliases": {"builder": "bundle"}}')
    with pytest.raises(ConfigurationError, match="an alias of `docker bundle build`"):
        detect(docker)


def test_the_table_of_traps_names_tests_that_exist() -> None:
    text = (ROOT / "docs/how-to/docker.md").read_text()
    table = text.partition("<!-- traps -->")[2].partition("<!-- end -->")[0]
    named = set(re.findall(r"`(test_\w+)` \|$", table, re.MULTILINE))
    rows = [line for line in table.splitlines() if line.startswith("| ")]
    assert len(rows) > len(named) > 20  # a head, and some tests hold two
    tests = "".join(path.read_text() for path in (ROOT / "tests").rglob("*.py"))
    assert {name for name in named if f"def {name}(" not in tests} == set()
