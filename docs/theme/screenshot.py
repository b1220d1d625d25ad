"""Takes the README's picture of the page that ``status --html`` writes: ``make screenshot``.

Builds a few images of state with the program itself. Needs git and chromium.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).parents[2]
PICTURE = ROOT / "docs/assets/status.png"
_WIDTH = 1160
_FOLD = "for (const part of document.querySelectorAll('details')) part.open = false"
_WHO = ("-c", "user.name=shop", "-c", "user.email=shop@example.org")
_FETCH = "import sys; open(sys.argv[1], 'w').write(open(sys.argv[2]).read())"
_PROJECT = """\
[project]
name = "{name}"
version = "1"
"""
_SOURCE = """
[[tool.state-bundler.source]]
key = {key}
command = {command}
path = "src/{name}/state"
"""
# Of each image: the project, the tag, and how many records each key's system answers with.
_IMAGES = (
    ("shop", "1.3", {"FivetranAccountComponent[acme]": 240, "VendorCatalog[products]": 1200}),
    ("shop", "1.4", {"FivetranAccountComponent[acme]": 260, "VendorCatalog[products]": 1350}),
    ("stock", "2.0", {"SigmaComponent[bi]": 400, "VendorCatalog[suppliers]": 90}),
)


def main() -> None:
    sys.path.insert(0, str(ROOT))
    from tests.support.browser import browser

    with TemporaryDirectory(prefix="state-bundler-") as folder:
        os.chdir(folder)
        for name, tag, keys in _IMAGES:
            _build(Path(name), tag, keys)
        images = [f"oci:build/{name}:{tag}" for name, tag, _ in _IMAGES]
        policy = ["--guarded", "--require", "VendorCatalog[products]"]
        _run("status", *policy, "--html", "page.html", *images, code=1)
        with browser() as chromium:
            chromium.show(Path("page.html"), width=_WIDTH)
            chromium("Emulation.setScrollbarsHidden", hidden=True)
            chromium.value(
                "for (const one of document.querySelectorAll('details')) one.open = false"
            )
            chromium.screenshot(PICTURE)


def _build(project: Path, tag: str, keys: dict[str, int]) -> None:
    (project / "src" / project.name).mkdir(parents=True, exist_ok=True)
    text = _PROJECT.format(name=project.name)
    for number, (key, count) in enumerate(keys.items()):
        records = [{"id": item, "name": f"record {item}"} for item in range(count)]
        answer = (project / f"{number}.json").absolute()
        answer.write_text(json.dumps(records))
        command = json.dumps([sys.executable, "-c", _FETCH, "{state_path}", str(answer)])
        text += _SOURCE.format(key=json.dumps(key), command=command, name=project.name)
    (project / "pyproject.toml").write_text(text)
    (project / ".gitignore").write_text("state/\n")
    for words in (["init", "--quiet"], ["add", "."], [*_WHO, "commit", "--quiet", "-m", tag]):
        subprocess.run(["git", "-C", project, *words], check=True)
    _run("build", "oci", "--project", str(project), "-o", f"build/{project.name}:{tag}")


def _run(*words: str, code: int = 0) -> None:
    done = subprocess.run([sys.executable, "-m", "bundler", *words], check=False)
    if done.returncode != code:
        raise SystemExit(f"{words} exited with {done.returncode}")


if __name__ == "__main__":
    main()
