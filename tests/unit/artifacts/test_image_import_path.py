"""Where a state directory belongs: decided by what Python would import in the image."""

from __future__ import annotations

import io
import re
import tarfile
import zipfile

import pytest

from bundler.artifacts.image.image_import_path import (
    Nowhere,
    captured,
    find,
    parents,
    shadowing,
)
from bundler.artifacts.image.image_program import RunsAs, runs_as
from bundler.artifacts.image.image_users import user_id
from bundler.artifacts.image.rootfs import RootFilesystem
from bundler.errors import ConfigurationError
from tests.support.layouts import directory, layer

PLACE = "shop/defs/.local_defs_state"
SITE = "usr/local/lib/python3.11/site-packages"
APP = RunsAs("/app", (("PATH", "/usr/local/bin:/usr/bin"), ("PYTHON_VERSION", "3.11.9")))


def tree(*layers: dict[str, bytes | str | tarfile.TarInfo | None]) -> RootFilesystem:
    made = RootFilesystem()
    for number, entries in enumerate(layers):
        made.apply(io.BytesIO(layer(entries)), number, captured)
    return made


def module(root: str) -> dict[str, bytes | str | tarfile.TarInfo | None]:
    return {f"{root}/shop/__init__.py": b"", f"{root}/shop/defs/__init__.py": b""}


def test_a_module_in_site_packages() -> None:
    assert find(tree(module(SITE)), APP, PLACE) == f"/{SITE}/{PLACE}"


def test_an_installed_module_comes_before_the_sources_that_were_copied_in() -> None:
    assert find(tree({**module(SITE), **module("app/src")}), APP, PLACE) == f"/{SITE}/{PLACE}"


@pytest.mark.parametrize("name", ["_shop.pth", "__editable__.shop-0.1.pth"])
def test_an_editable_install(name: str) -> None:
    pth = {f"{SITE}/{name}": b"/code/projects/shop/src\n"}
    copy = module("somewhere/else")
    files = tree({**module("code/projects/shop/src"), **copy, **pth})
    assert find(files, APP, PLACE) == f"/code/projects/shop/src/{PLACE}"


def test_an_editable_finder_of_setuptools() -> None:
    finder = (
        b"import sys\nMAPPING: dict[str, str] = {'shop': '/code/shop'}\nNAMESPACES = {}\n"
        b"PATH_PLACEHOLDER = '__editable__.shop.finder.__path_hook__'\n"
    )
    files = tree({**module("code"), **module("x"), f"{SITE}/__editable___shop_finder.py": finder})
    assert find(files, APP, PLACE) == f"/code/{PLACE}"


@pytest.mark.parametrize(
    "environment",
    [
        (("PATH", "/app/.venv/bin:/usr/bin"),),
        (("VIRTUAL_ENV", "/app/.venv"),),
        (("UV_PROJECT_ENVIRONMENT", ".venv"),),
        (),
    ],
)
def test_a_virtual_environment(environment: tuple[tuple[str, str], ...]) -> None:
    files = tree(
        {
            **module("app/.venv/lib/python3.12/site-packages"),
            **module("app/src"),
            "usr/bin/python3.12": b"",
            "app/.venv/bin/python": "-> /usr/bin/python3.12",
        }
    )
    runs = RunsAs("/app", environment)
    assert find(files, runs, PLACE) == f"/app/.venv/lib/python3.12/site-packages/{PLACE}"


def test_an_environment_that_only_the_command_names() -> None:
    python = {"opt/env/bin/python3": "-> python3.11", "opt/env/bin/python3.11": b""}
    installed = module("opt/env/lib/python3.11/site-packages")
    files = tree({**installed, **module("app/src"), **python})
    runs = runs_as({"WorkingDir": "/app", "Cmd": ["/opt/env/bin/dagster", "api"]})
    assert find(files, runs, PLACE) == f"/opt/env/lib/python3.11/site-packages/{PLACE}"


def test_pythonpath_hides_site_packages() -> None:
    runs = RunsAs("/", (*APP.environment, ("PYTHONPATH", "/none:/lib1:/lib2")))
    files = tree({**module("lib1"), **module("lib2"), **module(SITE)})
    assert find(files, runs, PLACE) == f"/lib1/{PLACE}"


@pytest.mark.parametrize(
    ("path", "root"),
    [("lib", "/app/lib"), ("/none:./lib", "/app/lib"), (":/lib", "/app"), ("/lib:", "/lib")],
)
def test_pythonpath_may_be_relative_to_the_working_directory(path: str, root: str) -> None:
    runs = RunsAs("/app", (*APP.environment, ("PYTHONPATH", path)), ("dagster", "api"))
    places = {**module(SITE), **module("app/lib"), **module("lib")}
    if root == "/app":
        places |= module("app")
    assert find(tree(places), runs, PLACE) == f"{root}/{PLACE}"


def test_the_working_directory_and_sources_below_it() -> None:
    assert find(tree(module("app")), APP, PLACE) == f"/app/{PLACE}"
    assert find(tree(module("app/src")), APP, PLACE) == f"/app/src/{PLACE}"
    files = tree({**module("app/a/src"), **module("app/old/a/src")})
    assert find(files, APP, PLACE, hints=["a/src"]) == f"/app/a/src/{PLACE}"


def test_two_places_are_named() -> None:
    with pytest.raises(ConfigurationError, match="/app/shop") as failure:
        find(tree({**module("app"), **module(SITE)}), APP, "shop/state")
    assert f"/{SITE}/shop" in failure.value.what
    assert "image-path" in failure.value.hint
    with pytest.raises(ConfigurationError, match=re.escape("/one/shop/defs, /two/shop/defs")):
        find(tree({**module("one"), **module("two")}), APP, PLACE)


def test_dagster_imports_from_the_working_directory_first() -> None:
    """`dagster._utils.alter_sys_path`: in every process that loads a code location."""
    files = tree({**module("app"), **module(SITE)})
    assert find(files, APP, PLACE) == f"/app/{PLACE}"
    assert shadowing(files, APP, PLACE, f"/app/{PLACE}") is None
    assert shadowing(files, APP, PLACE, f"/{SITE}/{PLACE}") == "/app/shop/defs"


@pytest.mark.parametrize(
    ("program", "variables", "place"),
    [
        (["python", "-m", "shop.serve"], {}, "/app"),
        (["python3.11", "-u", "-X", "dev", "-mshop.serve"], {}, "/app"),
        (["/usr/local/bin/python", "-W", "error", "-c", "import shop"], {}, "/app"),
        (["python", "-um", "shop.serve"], {}, "/app"),
        (["python", "-Wm", "/srv/tools/run.py"], {}, "/srv/tools"),
        (["python", "--check-hash-based-pycs", "never", "-m", "shop"], {}, "/app"),
        (["python"], {}, "/app"),
        (["sh", "-c", "exec python -m shop.serve"], {}, "/app"),
        (["/bin/sh", "-c", "dbt deps && python -u -m shop.serve"], {}, "/app"),
        (["tini", "--", "python", "-m", "shop.serve"], {}, "/app"),
        (["python", "main.py"], {}, "/app"),
        (["python", "/srv/tools/run.py"], {}, "/srv/tools"),
        (["python", "tools"], {}, "/app/tools"),
        (["python", "/opt/run.py"], {}, f"/{SITE}"),
        (["python", "-P", "-m", "shop.serve"], {}, f"/{SITE}"),
        (["python", "-Im", "shop.serve"], {}, f"/{SITE}"),
        (["python", "-m", "shop.serve"], {"PYTHONSAFEPATH": "1"}, f"/{SITE}"),
        (["gunicorn", "shop.web"], {}, "/app"),
        (["sh", "-c", "exec /usr/local/bin/uvicorn shop.web:app"], {}, "/app"),
        (["shop", "serve"], {"PATH": "/app/.venv/bin:/usr/bin"}, f"/{SITE}"),
        (["tini", "--", ".venv/bin/shop"], {}, f"/{SITE}"),
        (["other", "serve"], {"PATH": "/app/.venv/bin:/usr/bin"}, None),
        (["sh", "-c", "./start"], {}, None),
        (["sh", "-c", "echo 'unclosed"], {}, None),
        ([], {}, None),
    ],
)
def test_what_comes_first_is_what_the_program_says(
    program: list[str], variables: dict[str, str], place: str | None
) -> None:
    files = tree(
        {**module("app"), **module("app/tools"), **module("srv/tools"), **module(SITE),
         "opt/run.py": b"", "srv/tools/run.py": b"", "app/.venv/bin/shop": b"",
         "app/.venv/pyvenv.cfg": b"", "usr/bin/other": b""}
    )  # fmt: skip
    environment = (*APP.environment, *variables.items())
    runs = RunsAs("/app", environment, tuple(program))
    if place is None:
        with pytest.raises(ConfigurationError, match="more than once"):
            find(files, runs, "shop/state")
    else:
        assert find(files, runs, "shop/state") == f"{place}/shop/state"


_DEBIAN = {"usr/bin/python3": "-> python3.11", "usr/bin/python3.11": b""}
_PASSWD = b"root:x:0:0::/root:/bin/sh\napp:x:1000:1000::/home/app:/bin/sh\n"


@pytest.mark.parametrize(
    ("installed", "config"),
    [
        ("usr/local/lib/python3.11/dist-packages", {}),
        ("usr/lib/python3/dist-packages", {}),
        ("usr/local/lib/python3.11/site-packages", {}),
        ("usr/lib64/python3.11/site-packages", {}),
        ("root/.local/lib/python3.11/site-packages", {}),
        ("home/app/.local/lib/python3.11/site-packages", {"User": "app"}),
        ("home/app/.local/lib/python3.11/site-packages", {"User": "1000:1000"}),
        ("srv/.local/lib/python3.11/site-packages", {"Env": ["HOME=/srv"]}),
        ("srv/x/lib/python3.11/site-packages", {"Env": ["PYTHONUSERBASE=/srv/x"]}),
    ],
)
def test_where_a_distributions_own_python_has_its_packages(
    installed: str, config: dict[str, object]
) -> None:
    files = tree({**module(installed), **module("build/src"), **_DEBIAN, "etc/passwd": _PASSWD})
    runs = runs_as({"WorkingDir": "/", **config})
    assert find(files, runs, PLACE) == f"/{installed}/{PLACE}"


def test_pip_of_a_distribution_comes_before_its_packages() -> None:
    local, own = "usr/local/lib/python3.11/dist-packages", "usr/lib/python3/dist-packages"
    files = tree({**module(local), **module(own), **_DEBIAN})
    assert find(files, RunsAs("/"), PLACE) == f"/{local}/{PLACE}"
    link = {f"{local}/_shop.pth": b"# a comment\nimport sys\n\n../../../../../code\n"}
    files = tree({**module("code"), **module(own), **_DEBIAN, **link})
    assert find(files, RunsAs("/"), PLACE) == f"/code/{PLACE}"


def test_the_editable_finder_of_hatchling() -> None:
    finder = b"from editables.redirector import F\nF.map_module('shop', '/code/shop/__init__.py')\n"
    files = tree({**module("code"), **module("x"), f"{SITE}/_editable_impl_shop.py": finder})
    assert find(files, APP, PLACE) == f"/code/{PLACE}"


def test_a_plain_folder_does_not_hide_an_installed_package() -> None:
    files = tree({**module(SITE), "app/shop/defs/leftover.yaml": b""})
    assert find(files, APP, PLACE) == f"/{SITE}/{PLACE}"
    assert find(tree({"app/shop/defs/x.yaml": b""}), APP, PLACE) == f"/app/{PLACE}"


@pytest.mark.parametrize(
    ("program", "environment"),
    [
        (["/opt/two/bin/dagster", "api"], "opt/two"),
        (["dagster", "api"], "opt/one"),
        (["bash", "-c", ". /opt/two/bin/activate && $@", "-", "dagster", "api"], "opt/two"),
        (["sh", "-c", ". .venv/bin/activate; exec dagster api"], "app/.venv"),
        (["../opt/two/bin/dagster", "api"], "opt/two"),
        (["uv", "run", "dagster", "api"], "app/.venv"),
    ],
)
def test_of_several_environments_it_is_the_programs(program: list[str], environment: str) -> None:
    every = [f"{name}/lib/python3.11/site-packages" for name in ("opt/one", "opt/two", "app/.venv")]
    entries: dict[str, bytes | str | tarfile.TarInfo | None] = {}
    for packages in every:
        prefix = packages.partition("/lib/")[0]
        entries |= {**module(packages), f"{prefix}/bin/python": "-> python3.11"}
        entries |= {f"{prefix}/bin/python3.11": b"", f"{prefix}/pyvenv.cfg": b""}
    runs = RunsAs("/app", (("PATH", "/opt/one/bin:/usr/bin"),), tuple(program))
    found = find(tree(entries), runs, PLACE)
    assert found == f"/{environment}/lib/python3.11/site-packages/{PLACE}"


def zipped(*names: str) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name in names:
            archive.writestr(name, "")
    return stream.getvalue()


OWN = zipped("shop/defs/__init__.py", "shop/__init__.py")
LIBRARY = zipped("py4j/__init__.py", "shop.txt")


@pytest.mark.parametrize(
    ("path", "archive", "is_found"),
    [
        ("/x.zip:/code", LIBRARY, True),
        ("/link.zip:/code", LIBRARY, True),
        ("/code:/x.zip", OWN, True),
        ("/names:/code:/x.zip", OWN, True),
        ("/x.zip:/code", OWN, False),
        ("/link.zip:/code", OWN, False),
        ("/x.zip:/code", zipped("shop.py"), False),
        ("/names:/x.zip", OWN, False),  # Python prefers a regular package to a namespace
        ("/x.zip:/code", b"no archive", False),
        ("/x.zip:/code", LIBRARY[:-9], False),
        ("/x.zip:/code", LIBRARY + bytes(9_000_000), False),
        ("/x:/code", LIBRARY, False),
    ],
)
def test_an_archive_that_python_may_import_from(path: str, archive: bytes, is_found: bool) -> None:
    """Without an interpreter, the names in it decide; if they are unknown, that is an error."""
    names = {"names/shop/defs/x": b"", "link.zip": "-> x.zip", "x": archive, "x.zip": archive}
    files = tree({**module("code"), **names})
    runs = RunsAs("/srv", (("PYTHONPATH", path),))
    assert find(files, runs, PLACE, override="/code/shop/defs") == f"/code/{PLACE}"
    if is_found:
        assert find(files, runs, PLACE) == f"/code/{PLACE}"
    else:
        with pytest.raises(ConfigurationError, match="which is not a directory") as caught:
            find(files, runs, PLACE)
        assert "image-path" in str(caught.value.hint)


def test_an_archive_that_was_added_later_hides_the_state() -> None:
    runs = RunsAs("/srv", (("PYTHONPATH", "/x.zip:/code"),), ("gunicorn",))
    for archive, found in ((OWN, "/x.zip"), (LIBRARY, None)):
        files = tree({**module("code"), "x.zip": archive})
        assert shadowing(files, runs, PLACE, f"/code/{PLACE}") == found


@pytest.mark.parametrize(
    "environment", ["opt/conda/envs/shop", "root/.cache/pypoetry/virtualenvs/shop-Ab1-py3.11"]
)
def test_sources_may_be_a_copy_of_what_an_unknown_environment_has(environment: str) -> None:
    """Which one the program imports depends on what activates the environment."""
    installed = f"{environment}/lib/python3.11/site-packages"
    files = tree({**module("app/src"), **module(installed)})
    with pytest.raises(ConfigurationError, match=re.escape(f"/app/src/shop/defs, /{installed}")):
        find(files, APP, PLACE)
    assert find(tree(module("app/src")), APP, PLACE) == f"/app/src/{PLACE}"
    assert find(tree(module(installed)), APP, PLACE) == f"/{installed}/{PLACE}"


def test_no_image_is_an_error_and_caches_do_not_count() -> None:
    with pytest.raises(Nowhere, match="is not in the image"):
        find(tree({**module("root/.cache/uv/archive"), **module("app/build/lib")}), APP, PLACE)


def test_a_module_that_a_later_layer_removed_or_moved() -> None:
    removed = tree(module(SITE), {f"{SITE}/shop/.wh.defs": b""}, module("app/src"))
    assert find(removed, APP, PLACE) == f"/app/src/{PLACE}"
    emptied = tree(module(SITE), {f"{SITE}/shop/.wh..wh..opq": b""}, module("app/src"))
    assert find(emptied, APP, PLACE) == f"/app/src/{PLACE}"


def test_links_are_followed() -> None:
    files = tree({**module("srv/v2/src"), "srv/now": "-> v2", "app": "-> ../srv/now/."})
    assert find(files, APP, PLACE) == f"/srv/v2/src/{PLACE}"
    loop = tree({"app": "-> other", "other": "-> app", **module("srv")})
    assert find(loop, APP, PLACE) == f"/srv/{PLACE}"


def test_image_path_may_name_the_folder_or_the_state_directory() -> None:
    files = tree({**module("one"), **module("two"), "link": "-> two"})
    for path in ("/link/shop/defs", "/two/shop/defs/", f"/two/{PLACE}"):
        assert find(files, APP, PLACE, override=path) == f"/two/{PLACE}"
    with pytest.raises(ConfigurationError, match="no directory /three"):
        find(files, APP, PLACE, override="/three")


def test_a_state_directory_of_any_name_and_place() -> None:
    files = tree({"app/src/shop/state/keep": b"", "app/src/shop/__init__.py": b""})
    assert find(files, APP, "shop/state") == "/app/src/shop/state"


def test_parents_have_their_owners() -> None:
    files = tree({"app": directory(0o711, 5, 6), "app/x": directory(0o3777, 7, 8)})
    found = [(item.path, item.mode, item.uid, item.gid) for item in parents(files, "/app/x/y/z")]
    assert found == [("/app", 0o711, 5, 6), ("/app/x", 0o3777, 7, 8), ("/app/x/y", 0o755, 0, 0)]


def test_the_user_by_number_and_by_name() -> None:
    files = tree({"etc/passwd": b"root:x:0:0::/:/bin/sh\napp:x:1234:99::/:/bin/sh\nodd\n"})
    users = {"": 0, "77": 77, "77:88": 77, "app": 1234, "app:staff": 1234, "root": 0}
    assert {user: user_id(files, user) for user in users} == users
    with pytest.raises(ConfigurationError, match="'nobody'"):
        user_id(files, "nobody")
