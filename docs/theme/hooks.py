"""What MkDocs needs to know about this repository: drawn diagrams, and links that leave docs/."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from diagrams import BLOCK, drawing
from mkdocs.structure.files import File

ROOT = Path(__file__).parents[2]
_LINK = re.compile(r"(?<=\]\()(?!\w+:|#)([^)#\s]+)")
# Pages of the project that live at the top of the repository.
_PROJECT = {
    "CHANGELOG.md": "project/changelog.md",
    "CODE_OF_CONDUCT.md": "project/code-of-conduct.md",
    "CONTRIBUTING.md": "project/contributing.md",
    "RELEASING.md": "project/releasing.md",
    "SECURITY.md": "project/security.md",
}
_SOURCES = {address: source for source, address in _PROJECT.items()}


def on_files(files: Any, config: Any) -> Any:
    for source, address in _PROJECT.items():
        if (ROOT / source).exists():
            files.append(File.generated(config, address, abs_src_path=str(ROOT / source)))
    for page in list(files.documentation_pages()):
        text = Path(page.abs_src_path).read_text(encoding="utf-8")
        for target in _LINK.findall(text):
            address = _address(target, page.src_uri)
            if address.startswith("files/") and not files.get_file_from_path(address):
                source = str(ROOT / address.removeprefix("files/"))
                files.append(File.generated(config, address, abs_src_path=source))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    here = os.path.dirname(page.file.src_uri) or "."
    markdown = _LINK.sub(
        lambda found: os.path.relpath(_address(found[1], page.file.src_uri), here), markdown
    )
    return BLOCK.sub(lambda found: drawing(found[1]), markdown)


def _address(target: str, page: str) -> str:
    """Where a link's target is in the site."""
    source = _SOURCES.get(page, f"docs/{page}")
    path = os.path.normpath(os.path.join(os.path.dirname(source), target))
    if path == "README.md":
        return "README.md"
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    return _PROJECT.get(path, f"files/{path}")
