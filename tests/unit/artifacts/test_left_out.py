"""A build leaves credentials, .git and what git ignores out of its context, unless it is named."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from bundler.artifacts.image.engine.dockerfile import context_paths
from bundler.artifacts.image.engine.left_out import LeftOut, Names, find
from bundler.artifacts.image.engine.stdin_context import Piped
from bundler.errors import ChildFailed
from tests.support.workdir import WorkDir

_COPY = "FROM x\nCOPY . /app\n"
_PEM = "-----BEGIN {}-----\nAA==\n-----END {}-----\n"


def _left_out(root: Path, dockerfile: str = _COPY, ignored: str = "", **args: str) -> LeftOut:
    return find(root, ignored, Names.of(dockerfile, "Dockerfile", ignored, args))


def _write(root: Path, *paths: str, text: str = "x") -> None:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)


@pytest.mark.parametrize(
    "path",
    [".env", ".env.production", ".env-local", ".envrc", ".envs/prod/postgres", "deep/down/.env",
     "id_rsa", "id_ed25519", "tls/server.key", "tls/server.pem", ".netrc", ".pypirc", ".npmrc",
     ".aws/credentials", ".docker/config.json", "kubeconfig", "kubeconfig.yaml", ".kube/config",
     "service-account.json", "my_service_account_key.json", "store.p12", ".ENV", ".git/config",
     "sub/.git", ".git-credentials", ".streamlit/secrets.toml"],
)  # fmt: skip
def test_credentials_are_left_out_by_name(path: str, tmp_path: Path) -> None:
    _write(tmp_path, path, "shop.py")
    (left_out,) = _left_out(tmp_path).credentials
    assert f"{path}/".startswith(f"{left_out}/")


@pytest.mark.parametrize(
    "path",
    [".env.example", ".env.sample", "env", ".environment", "id_rsa.pub", "shop/environment.py",
     ".github/workflows/x.yml", ".gitignore", "service.json", ".docker/entrypoint.sh"],
)  # fmt: skip
def test_what_only_looks_like_it_stays(path: str, tmp_path: Path) -> None:
    _write(tmp_path, path)
    assert _left_out(tmp_path) == LeftOut()


def test_a_pem_with_certificates_alone_stays(tmp_path: Path) -> None:
    _write(tmp_path, "ca.pem", text=_PEM.replace("{}", "CERTIFICATE"))
    _write(
        tmp_path,
        "both.pem",
        text=_PEM.replace("{}", "CERTIFICATE") * 9000 + "-----BEGIN RSA PRIVATE KEY-----",
    )
    assert _left_out(tmp_path).credentials == ("both.pem",)


def test_a_service_accounts_key_is_known_by_its_content(tmp_path: Path) -> None:
    key = '{"type": "service_account", "private_key": "' + "A" * 1600 + '"}'
    _write(tmp_path, "acme-prod-0123456789ab.json", text=key)
    _write(tmp_path, "package.json", text='{"name": "' + "a" * 1600 + '"}')
    assert _left_out(tmp_path).credentials == ("acme-prod-0123456789ab.json",)


@pytest.mark.parametrize(
    ("dockerfile", "ships"),
    [
        ("COPY .env /app/", True),
        ('COPY ["./.env", "/app/"]', True),
        ("COPY --chown=1:1 a.py .env* /app/", True),
        ("ADD --link /.env /app/", True),
        ("ARG SETTINGS=.env\nCOPY ${SETTINGS} /app/", True),
        ("RUN --mount=type=bind,source=.env,target=/x cat /x", False),
        ("RUN --network=none --mount=src=.env,target=/x cat /x", False),
    ],
)
def test_what_the_dockerfile_names_stays(dockerfile: str, ships: bool, tmp_path: Path) -> None:
    _write(tmp_path, ".env")
    left_out = _left_out(tmp_path, f"FROM x\n{dockerfile}\n")
    assert left_out.credentials == ()
    line = 2 + dockerfile.count("\n")
    assert left_out.named == ((".env", f"Dockerfile:{line}"),) * ships


@pytest.mark.parametrize(
    "dockerfile",
    ["COPY . .", "ADD ./ /app", "COPY * /app/", "COPY .* /app/", "COPY --from=build .env /x",
     "COPY conf/ /conf/", "COPY <<.env /x\n.env\n.env", "# COPY .env /x",
     "RUN --mount=type=secret,id=.env cat", "RUN --mount=type=bind,from=b,source=.env,target=/x x",
     "COPY https://example.com/.env /x", "ONBUILD COPY .env /x"],
)  # fmt: skip
def test_what_names_no_credentials(dockerfile: str, tmp_path: Path) -> None:
    _write(tmp_path, ".env", "conf/.env")
    left_out = _left_out(tmp_path, f"FROM x\n{dockerfile}\n")
    assert left_out.credentials == (".env", "conf/.env")


@pytest.mark.parametrize(
    ("ignored", "credentials"),
    [
        (".env\n", ("src/.env",)),
        ("**/.env*\n", ()),
        ("*\n!src\n", ("src/.env",)),
        ("*\n!src/**\n", ("src/.env",)),
        ("*\n!**/.env\n", ()),
        (".env\n!.env\n", ("src/.env",)),
        ("!*\n", (".env", "src/.env")),
    ],
)
def test_the_ignore_file_excludes_and_names(
    ignored: str, credentials: tuple[str, ...], tmp_path: Path
) -> None:
    _write(tmp_path, ".env", "src/.env")
    assert _left_out(tmp_path, ignored=ignored).credentials == credentials


# --- what git ignores -----------------------------------------------------------------------


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    wd = WorkDir.make(tmp_path / "repository")
    wd.write(".gitignore", "dist/\nbuild/\ntarget/\n_version.py\n*.log\n.venv\n__pycache__/\n")
    wd.write("shop/a.py", "")
    wd("git add -A")
    wd("git commit -qm All")
    _write(
        wd.path,
        *("dist/a.whl", "dist/b.tar.gz", "build/app.pex", "build/x/y", "target/manifest.json"),
        *("target/run.json", "shop/_version.py", "shop/a.log", ".venv/bin/python", "new/b.log"),
        *("shop/__pycache__/a.pyc", "new/__pycache__/b.pyc"),
    )
    return wd.path


_ALL = ("build", "dist", "new/__pycache__", "new/b.log", "shop/__pycache__", "shop/_version.py")


@pytest.mark.parametrize(
    ("dockerfile", "kept"),
    [
        ("COPY . .", set()),
        ("COPY dist/*.whl /x/", {"dist"}),
        ("ARG V\nCOPY dist/shop-${V}.whl /x/", {"dist"}),
        ("COPY dist /x", {"dist"}),
        ("COPY target/manifest.json /x", {"target"}),
        ("COPY shop/_version.py /x", {"shop/_version.py"}),
        ("COPY shop /x", set()),
    ],
)
def test_what_git_ignores_is_left_out_unless_it_is_named(
    dockerfile: str, kept: set[str], repository: Path
) -> None:
    everything = {*_ALL, "target", ".venv", "shop/a.log"}
    left_out = _left_out(repository, f"FROM x\n{dockerfile}\n")
    assert left_out.credentials == (".git",)
    tops = {path for path in left_out.ignored if path in everything}
    assert tops == everything - kept


def test_of_an_ignored_folder_only_what_is_named_stays(repository: Path) -> None:
    left_out = _left_out(repository, "FROM x\nCOPY dist/*.whl build/x/y target /x/\n")
    assert {path for path in left_out.ignored if path.startswith(("dist", "build", "target"))} == {
        "dist/b.tar.gz",
        "build/app.pex",
    }


@pytest.mark.parametrize(
    ("dockerfile", "ignored", "copied"),
    [
        ("COPY . .", "", ()),
        ("COPY shop /x", "", (("shop/_version.py", 2), ("shop/a.log", 2))),
        ("COPY shop/ new /x", "", (("new/b.log", 2), ("shop/_version.py", 2), ("shop/a.log", 2))),
        ("COPY new* /x", "", (("new/b.log", 2),)),
        ("COPY shop /x", "!shop/_version.py\n", (("shop/a.log", 2),)),
        ("COPY shop shop/a.log /x", "**/*.py\n", ()),
        ("RUN --mount=source=new,target=/x y", "", (("new/b.log", 2),)),
    ],
)
def test_what_is_left_out_of_a_folder_that_is_copied_by_name_is_a_warning(
    dockerfile: str, ignored: str, copied: tuple[tuple[str, int], ...], repository: Path
) -> None:
    left_out = _left_out(repository, f"FROM x\n{dockerfile}\n", ignored)
    assert left_out.copied == tuple((path, f"Dockerfile:{line}") for path, line in copied)
    fixes = [sentence.rpartition(": ")[2] for sentence in left_out.warnings()]
    assert fixes == [f"!{path}" for path, _ in copied[:1]]


def test_it_is_said_in_one_line_and_in_a_failure(repository: Path) -> None:
    left_out = _left_out(repository)
    sentence = (
        "Excluded from the build context: .git, and files that git ignores (.venv, build, dist, "
        "new/b.log and 4 more). To include one, name it in a COPY, or add a rule to the ignore "
        "file: !.git"
    )
    assert str(left_out) == sentence
    with pytest.raises(ChildFailed) as failed, left_out.explaining():
        raise ChildFailed("docker build", 1)
    assert failed.value.hint == sentence
    assert list(left_out.rules).count("**/__pycache__") == 1


def test_a_context_above_its_repositories(tmp_path: Path) -> None:
    for name in ("one", "two"):
        wd = WorkDir.make(tmp_path / "all" / name)
        wd.write(".gitignore", f"{name}.log\n")
        _write(wd.path, "one.log", "two.log")
    left_out = _left_out(tmp_path / "all")
    assert left_out.ignored == ("one/one.log", "two/two.log")
    assert left_out.credentials == ("one/.git", "two/.git")


def test_a_context_below_the_top_and_one_that_git_ignores(repository: Path) -> None:
    assert _left_out(repository / "shop").ignored == ("__pycache__", "_version.py", "a.log")
    assert _left_out(repository / "build") == LeftOut(artifacts=("app.pex",))


def test_older_artifacts_are_reported(tmp_path: Path) -> None:
    _write(tmp_path, "app.pex", "dist/shop-1.whl", "wheels/vendored.whl", "build/x.pex")
    assert _left_out(tmp_path).artifacts == ("app.pex", "build/x.pex", "dist/shop-1.whl")
    assert _left_out(tmp_path, "FROM x\nCOPY app.pex dist /\n").artifacts == ("build/x.pex",)


def test_a_git_that_cannot_answer_is_reported(tmp_path: Path) -> None:
    _write(tmp_path, ".git", text="gitdir: nowhere\n")
    _write(tmp_path, ".env")
    left_out = _left_out(tmp_path)
    assert left_out.credentials == (".env", ".git")
    (said,) = left_out.problems
    assert "git cannot list what it ignores" in said


# --- an archive on stdin --------------------------------------------------------------------


def test_an_archive_on_stdin_loses_its_credentials() -> None:
    content = io.BytesIO()
    public = _PEM.replace("{}", "CERTIFICATE")
    files = {".env": "x", "a/.aws/config": "x", "ca.pem": public, "key.pem": "x", "shop.py": "x",
             "kept/.env": "x", ".git/config": "x", ".git/HEAD": "x"}  # fmt: skip
    with tarfile.open(fileobj=content, mode="w") as archive:
        for name, text in files.items():
            info = tarfile.TarInfo(f"./{name}")
            info.size = len(text)
            archive.addfile(info, io.BytesIO(text.encode()))
    piped = Piped(content, is_archive=True)
    names = Names.of("FROM x\nCOPY kept/.env /\n", "Dockerfile", "", {})
    credentials = list(piped.credentials(names))
    assert credentials == [".env", "a/.aws", "key.pem", ".git"]
    sent = io.BytesIO()
    piped.write(sent, [], credentials)
    sent.seek(0)
    with tarfile.open(fileobj=sent, mode="r:gz") as archive:
        assert archive.getnames() == ["./ca.pem", "./shop.py", "./kept/.env"]


def test_what_a_dockerfile_names_of_its_context() -> None:
    text = "ARG A=a/b\nENV B b\nCOPY $A ${C:-c} ${D}-x ../up/./y/ /to\nADD --from=z q /to\n"
    found = [path for _, path, _ in context_paths(text, {"A": "given"})]
    assert found == ["given", "c", "*-x", "up/y"]
