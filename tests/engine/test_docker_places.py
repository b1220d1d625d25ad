"""Where the state is in an image of a real engine: next to the module that is imported."""

from __future__ import annotations

import re
import shutil
import subprocess
from typing import Any

import pytest

from bundler.artifacts.embedding import EmbedRequest
from bundler.artifacts.image.engine import embedding
from bundler.artifacts.image.engine.arguments import parse
from bundler.artifacts.image.engine.embedding import tag
from bundler.artifacts.image.engine.files import reading
from bundler.artifacts.image.image import LABEL_LAYER
from bundler.artifacts.image.image_import_path import parents
from bundler.artifacts.image.image_program import runs_as
from bundler.artifacts.image.image_users import groups_of, may_enter, user_id
from bundler.errors import ConfigurationError, VerificationFailed
from bundler.state.bundle import STATE_DIRECTORY
from tests.support.bundles import PLACE, make_bundle, make_record
from tests.support.dockerprojects import EDITABLE, INSTALLED, PLUGIN, Project, verified
from tests.support.embedding import build_image, embed_image
from tests.support.engine import PYTHON_BASE

pytestmark = pytest.mark.engine(offline=True)


def test_the_code_finds_its_state_where_it_is_imported(project: Project) -> None:
    for dockerfile in (EDITABLE, INSTALLED):
        project.write("Dockerfile", dockerfile)
        bundle = project.new_state()
        for path in (bundle.root, *bundle.root.rglob("*")):  # as under umask 077
            path.chmod(0o700 if path.is_dir() else 0o600)
        project.build(bundle=bundle)
        code = (
            "import shop.defs, pathlib;"
            "print(pathlib.Path(shop.defs.__file__).with_name('.local_defs_state')"
            ".joinpath('Catalog/state').read_text())"
        )
        run = ("run", "--rm", "--network", "none", "--user", "4321", project.name)
        said = project.engine.docker(*run, "python", "-c", code).stdout
        assert said.strip() == (bundle.root / "Catalog/state").read_bytes()


def test_an_update_replaces_the_layer(project: Project) -> None:
    first = project.build()
    engine = project.docker().connect()
    bundle = project.new_state()
    made = embed_image(engine, project.name, [bundle], make_record(bundle), check=verified)

    before, after = project.inspect(first.image_id), project.inspect(made.image_id)
    assert len(before["RootFS"]["Layers"]) == len(after["RootFS"]["Layers"])
    assert before["Config"]["Labels"][LABEL_LAYER] != after["Config"]["Labels"][LABEL_LAYER]
    engine.remove_image(made.image_id)


def test_a_place_is_remembered_only_for_the_very_same_image(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.build()

    def build_again() -> tuple[int, str]:
        """How often the image's files were asked, and where the state went."""
        asked: list[str] = []
        plan = embedding.plan

        def counting(*arguments: Any) -> Any:
            asked.append("")
            return plan(*arguments)

        with monkeypatch.context() as patch:
            patch.setattr(embedding, "plan", counting)
            (path,) = project.build().paths
        return len(asked), path

    # The same files: what the earlier image's label says. plan is looked up when it is called.
    assert build_again() == (0, f"/app/src/{PLACE}")
    moved = "ENV PYTHONPATH=/two\nUSER 0\nRUN cp -r /app/src /two\nUSER 1000\n"
    for text, place in (
        (EDITABLE + moved, "/two"),
        (EDITABLE + "ENV OTHER=1\n", "/app/src"),
        (INSTALLED, "/usr/local/lib/python3.11/dist-packages"),
    ):
        project.write("Dockerfile", text)
        assert project.build().paths == (f"{place}/{PLACE}",)
        assert build_again()[1] == f"{place}/{PLACE}"


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("VOLUME /app/src\n", "VOLUME /app/src"),
        ("RUN rm -rf /app/src\n", "is not in the image"),
        (
            "RUN rm /usr/local/lib/python3.11/*/_shop.pth; cp -r src /two; mv src /one\n",
            "/one/shop/defs, /two/shop/defs",
        ),
        ("USER nobody-knows\n", "nobody-knows"),
    ],
)
def test_an_ambiguous_place_is_an_error(lines: str, message: str, project: Project) -> None:
    project.write("Dockerfile", EDITABLE.replace("USER 1000\n", "") + lines)
    with pytest.raises(ConfigurationError, match=re.escape(message)):
        project.build()
    assert not project.engine.has_image(project.name)


_DIST = "/usr/local/lib/python3.11/dist-packages"
_USER = "/home/app/.local/lib/python3.11/site-packages"
_LEFT = f"FROM {PYTHON_BASE}\nWORKDIR /build\nCOPY . .\nRUN mkdir -p {_DIST}\n"
_CODE = "RUN mkdir -p /opt && cp -r src /opt/code\nWORKDIR /\n"
_RUNS = f"""RUN echo "import sys; print('hi'); sys.path.append('/opt/code')" > {_DIST}/a.pth\n"""


@pytest.mark.parametrize(
    ("lines", "place"),
    [
        (f"RUN cp -r src/shop {_DIST}\n", _DIST),
        (f"RUN cp -r src/shop {_DIST} && cp -r src/shop .\n", "/build"),
        (f"{_CODE}RUN echo ../../../../../opt/code > {_DIST}/shop.pth\n", "/opt/code"),
        (f"{_CODE}{_RUNS}", "/opt/code"),
        (f"{_CODE}{_RUNS}RUN mkdir /t && ln -s /usr/bin/python3 /t/python\nENV PATH=/t:/bin\n",
         "/opt/code"),
        ((f"RUN echo app:x:1000:1000::/home/app:/bin/sh >> /etc/passwd && mkdir -p {_USER} && "
         f"cp -r src/shop {_USER} && "
         "chown -R app /home/app\nUSER app\nWORKDIR /\n"), _USER),
    ],
    ids=["left in a build folder", "flat", "relative pth", "pth that runs", "odd PATH", "user"],
)  # fmt: skip
def test_the_place_is_the_one_that_the_images_python_imports(
    lines: str, place: str, project: Project
) -> None:
    project.write("Dockerfile", f"{_LEFT}{lines}")
    built = project.build()
    code = "import shop.defs, os; print(os.path.dirname(os.path.realpath(shop.defs.__file__)))"
    run = ("run", "--rm", "--network", "none", project.name, "python", "-c", code)
    said = project.engine.docker(*run).stdout.decode().splitlines()[-1]
    assert built.paths == (f"{said}/{STATE_DIRECTORY}",)
    assert built.paths == (f"{place}/{PLACE}",)


def test_image_path_decides(project: Project) -> None:
    project.write("Dockerfile", EDITABLE.replace("USER 1000", "RUN cp -r /app/src /app/copy"))
    bundle = project.new_state()
    places = {PLACE: "/app/copy/shop/defs"}
    built = build_image(
        parse(["-t", project.name, str(project.root)]),
        EmbedRequest((bundle,), make_record(bundle), places), project.docker(), check=verified,
    )  # fmt: skip
    assert built.paths == (f"/app/copy/{PLACE}",)
    again = embed_image(project.docker().connect(), project.name, [bundle], make_record(bundle))
    assert again.paths == built.paths
    assert project.build(bundle=bundle).paths == (f"/app/src/{PLACE}",), "nobody named it this time"


def test_a_link_among_the_parents_hides_nothing(project: Project) -> None:
    project.write(
        "Dockerfile",
        f"FROM {PYTHON_BASE}\nCOPY src /srv/code\nRUN mkdir /app && ln -s /srv/code /app/src\n"
        "ENV PYTHONPATH=/app/src\n",
    )
    built = project.build()
    assert built.paths == (f"/srv/code/{PLACE}",)
    code = "import shop.defs, os; print(os.listdir('/app/src/shop/defs'))"
    said = project.engine.docker("run", "--rm", project.name, "python", "-c", code).stdout.decode()
    assert STATE_DIRECTORY in said
    assert "__init__.py" in said


def test_parents_keep_owner_and_mode(project: Project) -> None:
    project.write(
        "Dockerfile",
        EDITABLE.replace(
            "USER", "RUN chown -R 7:8 /app/src/shop && chmod 2751 /app/src/shop\nUSER"
        ),
    )
    project.build()
    run = ("run", "--rm", "--user", "0", project.name, "stat", "-c", "%u %g %a", "/app/src/shop")
    assert project.engine.docker(*run).stdout.decode().split() == ["7", "8", "2751"]


def test_a_state_that_the_images_user_cannot_reach_is_refused(project: Project) -> None:
    closing = "RUN chmod 700 /app/src\nUSER 1000"
    project.write("Dockerfile", EDITABLE.replace("USER 1000", closing))
    with pytest.raises(VerificationFailed, match="runs as 1000, who may not enter /app/src"):
        project.build()
    assert not project.engine.has_image(project.name)


def test_who_may_enter_a_directory_is_known_for_every_mode_and_user(project: Project) -> None:
    modes = "700 750 710 701 071 017 007 755 2711"
    script = (
        "echo app:x:1001:1002::/:/bin/sh >> /etc/passwd; echo staff:x:8:x,app >> /etc/group\n"
        f"for o in 0:0 1000:0 1001:7 7:1002 7:8 7:9; do for m in {modes}; do d=/d/$o-$m\n"
        "mkdir -p $d/in; chown $o $d; chmod $m $d; done; done\n"
    )
    project.write("script", script)
    project.write("Dockerfile", f"FROM {PYTHON_BASE}\nCOPY script /\nRUN sh /script\n")
    build = (project.engine.clis[0], "build", "-q", "-t", project.name, project.root)
    subprocess.run(build, env=project.environment(), check=True, capture_output=True)
    engine, identity = project.docker().connect(), project.inspect()["Id"]
    with reading(engine, identity) as container:
        tree = container.tree()
        paths = [path for path, _ in tree.walk("/d") if path.endswith("/in")]
        owned = [parents(tree, path)[-1] for path in paths]
        assert len(owned) == 6 * len(modes.split())
        for user in ("", "root", "1000", "1000:1002", "1000:staff", "1001", "app", "app:9", "77"):
            run = ("run", "--rm", *(("--user", user) if user else ()), project.name)
            said = project.engine.docker(*run, "sh", "-c", "for d in /d/*; do test -e $d/in && "
                                         "echo $d; done; true").stdout.decode()  # fmt: skip
            number, groups = user_id(container, user), groups_of(container, user)
            ours = {it.path for it in owned if may_enter(it, number, lambda: groups)}  # noqa: B023
            assert ours == set(said.split()), user


def test_what_the_manifest_declares_is_writable_by_the_user(project: Project) -> None:
    states = {"Dbt": {"state": b"", "project/target/manifest.json": b"{}"}}
    bundle = make_bundle(
        project.root / "src" / PLACE, states, writable={"Dbt": ("project/target",)}
    )
    project.build(bundle=bundle)
    root = f"/app/src/{PLACE}/Dbt"
    script = (
        f"echo 1 > {root}/project/target/new && echo 2 > {root}/project/target/manifest.json"
        f" && ! (echo 3 > {root}/state) 2>/dev/null"
    )
    for user in ("1000", "54321:0"):
        project.engine.docker("run", "--rm", "--user", user, project.name, "sh", "-c", script)


def test_what_a_copy_brought_is_hidden(project: Project) -> None:
    """An earlier state that is no layer of ours: deleted keys must not live on below."""
    make_bundle(project.root / "src" / PLACE, {"Deleted": {"state": b"old"}})
    argv = [project.engine.clis[0], "build", "-q", "-t", project.name, str(project.root)]
    subprocess.run(argv, env=project.environment(), check=True, capture_output=True)
    shutil.rmtree(project.root / "src" / PLACE)
    bundle = project.new_state()
    engine = project.docker().connect()
    made = embed_image(engine, project.name, [bundle], make_record(bundle), check=verified)
    tag(engine, made.image_id, project.name)
    run = ("run", "--rm", project.name, "ls", f"/app/src/{PLACE}")
    assert project.engine.docker(*run).stdout.decode().split() == ["@manifest.json", "Catalog"]


_NAMES = ["[::1]:5000/x", "a..b/x", "sha256:x", "0" * 64, f"a.b/{'x' * 252}", "a.b:5000/x"]


@pytest.mark.parametrize("name", _NAMES)
def test_a_name_that_docker_does_not_accept_is_refused_before_the_refresh(
    name: str, project: Project
) -> None:
    """Which these are depends on its engine's version; an older client refuses more."""
    tagged = subprocess.run(
        [project.engine.clis[-1], "tag", PYTHON_BASE, name],
        env=project.engine.environment, capture_output=True, check=False,
    )  # fmt: skip
    project.engine.docker("image", "rm", name, check=False)
    project.configure()
    done = subprocess.run(
        [PLUGIN, "bundle", "build", "-t", name, "."],
        env=project.environment(), cwd=project.root, capture_output=True, text=True, check=False,
    )  # fmt: skip
    project.engine.docker("image", "rm", name, check=False)
    assert done.returncode == (0 if tagged.returncode == 0 else 2), done.stderr
    assert (project.root / "src" / PLACE).exists() == (tagged.returncode == 0)


_TABLE = '[project]\nname = "shop"\nversion = "1"\ndescription = "x"\n[build-system]\n'
_SETUPTOOLS = ("setuptools.build_meta", "setuptools", '[tool.setuptools]\npackage-dir.""="src"')
_FINDER = '[tool.setuptools]\npackages=["shop", "shop.defs"]\npackage-dir.shop="src/shop"'
_HATCH = '[tool.hatch.build.targets.wheel]\npackages=["src/shop"]'
_POETRY = '[tool.poetry]\npackages=[{include="shop", from="src"}]'
_BACKENDS = {
    "setuptools": _SETUPTOOLS,
    "strict": _SETUPTOOLS,
    "finder": (*_SETUPTOOLS[:2], _FINDER),
    "hatchling": ("hatchling.build", "hatchling", _HATCH),
    "exact": ("hatchling.build", "hatchling", f"[tool.hatch.build]\ndev-mode-exact=true\n{_HATCH}"),
    "uv": ("uv_build", "uv_build", ""),
    "poetry": ("poetry.core.masonry.api", "poetry-core", _POETRY),
    "pdm": ("pdm.backend", "pdm-backend", ""),
    "flit": ("flit_core.buildapi", "flit-core", '[tool.flit.module]\nname="shop"'),
    "wheel": ("uv_build", "uv_build", ""),
    "debian": ("uv_build", "uv_build", ""),
}
# Each is installed in its own environment, from its own copy of the sources.
_INSTALL = """\
set -e
for name in ENVIRONMENTS; do
    editable=-e; options=
    test $name = wheel && editable=
    test $name = strict && options="--config-setting editable_mode=strict"
    mkdir -p /code/$name && cp -r src files/$name/pyproject.toml /code/$name
    uv venv -q /env/$name
    uv pip install -q --python /env/$name/bin/python $options editables $editable /code/$name
done
mkdir -p /code/debian && cp -r src files/debian/pyproject.toml /code/debian
uv pip install -q --system /code/debian
"""
_ASKING = (
    "for p in /env/*/bin/python /usr/bin/python3; do $p -c 'import os, shop.defs; "
    "print(os.path.realpath(os.path.dirname(shop.defs.__file__)))'; done"
)


_ARCHIVES = """
import os, zipfile
for name, package in (("app", "shop/defs"), ("lib", "py4j")):
    with zipfile.ZipFile(f"/{name}.zip", "w") as archive:
        for folder in (package.split("/")[0], package):
            archive.writestr(f"{folder}/__init__.py", "")
os.symlink("/app.zip", "/link.zip")
"""


def test_an_archive_on_the_import_path(project: Project) -> None:
    """Images of Spark have one with a library. The engine fails for a path below a file."""
    project.write("archives.py", _ARCHIVES)
    project.write("Dockerfile", f"FROM {PYTHON_BASE}\nCOPY src /code\nCOPY archives.py /\n"
                  "RUN python3 /archives.py\n")  # fmt: skip
    options = ("-q", "-t", project.name)
    build = (project.engine.clis[0], "build", *options, project.root)
    subprocess.run(build, env=project.environment(), check=True, capture_output=True)
    engine, image = project.docker().connect(), project.inspect()["Id"]
    with reading(engine, image) as container:
        finder = embedding.PlaceFinder(container, image)

        def found(path: str) -> str:
            runs = runs_as({"WorkingDir": "/", "Env": [f"PYTHONPATH={path}", "PATH=/usr/bin:/bin"]})
            return finder.find(runs, PLACE, None, ())

        assert found("/lib.zip:/code") == found("/code:/app.zip") == f"/code/{PLACE}"
        for path in ("/app.zip", "/link.zip:/code"):
            with pytest.raises(ConfigurationError, match=r"from /app\.zip/shop/defs, which"):
                found(path)


def test_an_installed_package_is_where_the_interpreter_finds_it(project: Project) -> None:
    names = sorted(_BACKENDS.keys() - {"debian"})
    for name, (backend, requires, more) in _BACKENDS.items():
        table = f'{_TABLE}requires = ["{requires}"]\nbuild-backend = "{backend}"\n{more}\n'
        project.write(f"files/{name}/pyproject.toml", table)
    project.write("install", _INSTALL.replace("ENVIRONMENTS", " ".join(names)))
    project.write("Dockerfile", f"FROM {PYTHON_BASE}\nWORKDIR /build\nCOPY . .\n"
                  "RUN sh install && rm -r /build/*\nWORKDIR /\n")  # fmt: skip
    options = ("-q", "--network=host", "-t", project.name)  # uv asks the machine's own index
    build = (project.engine.clis[0], "build", *options, project.root)
    subprocess.run(build, env=project.environment(), check=True, capture_output=True)
    said = project.engine.docker(
        "run", "--rm", "--network=none", project.name, "sh", "-c", _ASKING
    )  # fmt: skip
    expected = dict(zip([*names, "debian"], said.stdout.decode().split(), strict=True))
    engine, image = project.docker().connect(), project.inspect()["Id"]
    with reading(engine, image) as container:
        finder = embedding.PlaceFinder(container, image)
        for name, folder in expected.items():
            path = f"/env/{name}/bin" if name != "debian" else "/usr/local/bin:/usr/bin"
            runs = runs_as({"WorkingDir": "/", "Env": [f"PATH={path}"]})
            assert finder.find(runs, PLACE, None, ()) == f"{folder}/{STATE_DIRECTORY}", name
