"""`doctor` finds what a Compose file mounts over the state in an image."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from bundler.errors import ConfigurationError
from bundler.project.survey import survey
from bundler.setup.doctor import DoctorContext, Finding, docker
from bundler.setup.doctor.compose import compose

_PYPROJECT = """\
[project]
name = "shop"
[[tool.state-bundler.source]]
key = "A"
command = ["true"]
path = "src/shop/state"
"""
_DOCKERFILE = "FROM x\nWORKDIR /app\nCOPY . .\n"


def _found(root: Path, files: dict[str, str], project: str = ".") -> list[Finding]:
    for name, text in {f"{project}/pyproject.toml": _PYPROJECT, **files}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return list(compose(DoctorContext(survey(root / project), Path(sys.executable))))


def _service(volumes: str, build: str = "build: .") -> str:
    return f"services:\n  web:\n    {build}\n{volumes}"


def _volumes(*items: str) -> str:
    return "    volumes:\n" + "".join(f"      - {item}\n" for item in items)


_LONG = "{{type: {}, source: {}, target: {}}}"


@pytest.mark.parametrize(
    ("volumes", "says"),
    [
        (_volumes(".:/app"), "mounts . over /app"),
        (_volumes("./:/app:ro"), "mounts . over /app"),
        (_volumes("./src:/app/src"), "mounts src over /app/src"),
        (_volumes("./src/shop:/app/src/shop"), "mounts src/shop over"),
        (_volumes("${CODE:-.}:/app"), "mounts . over /app"),
        (_volumes("${UNSET_CODE:?must be set}:/app"), "has a volume over /app"),
        (_volumes(".${UNSET_CODE:+/data}:/app"), "mounts . over /app"),
        (_volumes(".${HOME:+/src}:/app/src"), "mounts src over /app/src"),
        (_volumes("/srv/elsewhere:/app"), "over /app"),
        (_volumes(_LONG.format("bind", ".", "/app")), "mounts . over /app"),
        (_volumes(_LONG.format("volume", "code", "/app")), "has a volume over /app"),
        (_volumes("code:/app"), "has a volume over /app"),
        (_volumes("/app/src"), "has a volume over /app/src"),
        (_volumes(_LONG.format("tmpfs", "", "/app/src/shop/state")), "has a tmpfs over"),
        ("    tmpfs: /app\n", "has a tmpfs over /app"),
        ("    volumes: !override\n      - .:/app\n", "mounts . over /app"),
        (_volumes("./data:/app/data"), ""),
        (_volumes("./src:/code"), ""),
        (_volumes(".:/mnt"), ""),
        (_volumes("data:/var/lib/data", "/tmp"), ""),
        (_volumes("./src/other:/app/src/other"), ""),
        (_volumes("/:/host"), ""),
    ],
)
def test_a_mount_over_the_code_is_found(volumes: str, says: str, tmp_path: Path) -> None:
    files = {"Dockerfile": _DOCKERFILE, "docker-compose.yaml": _service(volumes)}
    found = _found(tmp_path, files)
    assert [finding.grade for finding in found] == ["warn"] * bool(says)
    assert all(says in finding.what and "docker-compose.yaml" in finding.what for finding in found)


@pytest.mark.parametrize(
    "name",
    [
        *("compose.yaml", "compose.yml", "docker-compose.yml", "compose.override.yaml"),
        *("docker-compose.override.yml", "docker-compose.prod.yaml"),
    ],
)
def test_in_every_file_that_compose_reads(name: str, tmp_path: Path) -> None:
    files = {"Dockerfile": _DOCKERFILE, name: _service(_volumes(".:/app"))}
    assert len(_found(tmp_path, files)) == 1


@pytest.mark.parametrize(
    ("build", "dockerfile", "is_found"),
    [
        ("build: {context: ., dockerfile: one/Dockerfile}", "COPY one /app", True),
        ("build: {context: ., dockerfile: docker/Dockerfile}", "COPY one /app", True),
        ("build: {context: one}", "COPY . /app", True),
        ("image: one:1", "COPY . /app", True),
        ("build: {context: ., dockerfile: two/Dockerfile}", "COPY two /app", False),
        ("build: two", "COPY . /app", False),
        ("build: {context: ., dockerfile: docker/Dockerfile}", "WORKDIR /app\nCOPY two .", False),
        ("build: {context: ., dockerfile: docker/Dockerfile}", "WORKDIR /app", True),
        (
            "build: {context: ., dockerfile: docker/Dockerfile, args: {LOCATION: one}}",
            "ARG LOCATION\nCOPY ${LOCATION} /app",
            True,
        ),
        (
            "build: {context: ., dockerfile: docker/Dockerfile, args: [LOCATION=two]}",
            "ARG LOCATION\nCOPY ${LOCATION} /app",
            False,
        ),
    ],
)
def test_only_a_service_that_may_run_this_project_counts(
    build: str,
    dockerfile: str,
    is_found: bool,
    tmp_path: Path,  # a parameter
) -> None:
    text = f"FROM x\n{dockerfile}\n"
    (tmp_path / ".git").mkdir()
    files = {f"{name}/Dockerfile": text for name in ("one", "two", "docker")}
    files["two/pyproject.toml"] = _PYPROJECT
    files["compose.yaml"] = _service(_volumes("volume:/app"), build)
    assert bool(_found(tmp_path, files, "one")) == is_found


@pytest.mark.parametrize(("build", "is_found"), [("build: .", True), ("build: other", False)])
def test_an_override_mounts_into_what_the_first_file_builds(
    build: str, is_found: bool, tmp_path: Path
) -> None:
    files = {
        "Dockerfile": _DOCKERFILE,
        "other/Dockerfile": "FROM x\n",
        "compose.yaml": f"services:\n  web:\n    {build}\n",
        "compose.override.yaml": _service(_volumes("./src:/app/src"), "tty: true"),
    }
    assert bool(_found(tmp_path, files)) == is_found


@pytest.mark.parametrize(
    "name", ["compose.dev.yaml", "docker-compose.local.yml", "dev.compose.yml"]
)
def test_a_file_for_development_causes_no_warning(name: str, tmp_path: Path) -> None:
    text = _service("    profiles: [dev]\n" + _volumes(".:/app"))
    (finding,) = _found(tmp_path, {"Dockerfile": _DOCKERFILE, name: text})
    assert finding.grade == "ok"
    assert "the service web (profile dev) mounts . over /app" in finding.what


def test_a_file_that_is_not_yaml_is_named(tmp_path: Path) -> None:
    (finding,) = _found(tmp_path, {"compose.yaml": "services: [\n"})
    assert finding.grade == "warn"
    assert "compose.yaml cannot be read" in finding.what


@pytest.mark.parametrize(
    "text",
    [
        _service("    volumes: ./:/app\n"),
        _service("    tmpfs: 5\n"),
        _service("", "build: {context: ., args: 5}"),
        _service(_volumes("~nosuch/x:/srv")),
        _service(_volumes("5", "[a]")),
        _service("", 'build: "a\\0b"'),
        "services: [5]\n",
        "services: {a: 5}\n",
        "5\n",
    ],
)
def test_what_compose_would_reject_stops_nothing(text: str, tmp_path: Path) -> None:
    files = {"Dockerfile": _DOCKERFILE, "compose.yaml": text}
    assert all("cannot be read" in each.what for each in _found(tmp_path, files))


def test_without_a_dockerfile_the_folder_that_is_mounted_decides(tmp_path: Path) -> None:
    text = _service(_volumes("./src:/app/src", "data:/data", "./docs:/docs"), "image: shop:1.4")
    (finding,) = _found(tmp_path, {"compose.yaml": text})
    assert "mounts src over /app/src" in finding.what


@pytest.mark.parametrize(
    ("dockerfile", "is_found"),
    [
        ("WORKDIR /app\nCOPY . .\nVOLUME /app", True),
        ("VOLUME /app\nWORKDIR /app\nCOPY . .", True),
        ('WORKDIR /app\nCOPY . .\nVOLUME ["/data", "/app/src"]', True),
        ("ENV HOME_OF_APP=/app\nCOPY src ${HOME_OF_APP}\nVOLUME $HOME_OF_APP", True),
        ("ARG AT=/srv\nCOPY src $AT/code\nVOLUME /srv", True),
        ("WORKDIR /app\nRUN pip install shop\nVOLUME /app", True),
        ("COPY . /app\nWORKDIR /data\nVOLUME /data", False),
        ("WORKDIR /app\nCOPY . .\nVOLUME /app/data", False),
        ("WORKDIR /app\nCOPY . .\nVOLUME /application", False),
        ("COPY . /app\nFROM y\nWORKDIR /srv\nCOPY --from=0 /app /srv\nVOLUME /app", False),
    ],
)
def test_a_volume_over_the_code_is_found(
    dockerfile: str,
    is_found: bool,  # a parameter of the table
    tmp_path: Path,
) -> None:
    (tmp_path / "pyproject.toml").write_text(_PYPROJECT)
    (tmp_path / "Dockerfile").write_text(f"FROM x\n{dockerfile}\n")
    found = docker.dockerfiles(DoctorContext(survey(tmp_path), Path(sys.executable)))
    assert any("declares the volume" in finding.what for finding in found) == is_found


def test_an_error_in_the_configuration_is_not_blamed_on_a_compose_file(tmp_path: Path) -> None:
    compose_file = {"compose.yaml": _service(_volumes(".:/app")), "Dockerfile": _DOCKERFILE}
    _found(tmp_path, compose_file)
    (tmp_path / "pyproject.toml").write_text(f"[tool.state-bundler]\nimage-path = 3\n{_PYPROJECT}")
    with pytest.raises(ConfigurationError):
        list(compose(DoctorContext(survey(tmp_path), Path(sys.executable))))
