"""Draws the Mermaid diagrams of the documentation: ``make diagrams``.

The site works offline and without three megabytes of JavaScript, so each diagram is drawn here,
once, by headless Chromium, into ``docs/assets/diagrams/<digest of its text>.svg``.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
DRAWN = ROOT / "docs" / "assets" / "diagrams"
BLOCK = re.compile(r"^```mermaid\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_MERMAID = "mermaid@11.16.0"
# The left ones are what Mermaid calculates with; the site's palette decides how they look.
_COLOURS = {
    "#f1f1f1": "var(--md-code-bg-color)",
    "#121212": "var(--md-default-fg-color)",
    "#777778": "var(--md-default-fg-color--light)",
    "#fefefe": "var(--md-default-bg-color)",
    "#8a8a8b": "var(--md-typeset-a-color)",
}
_THEME = {
    "background": "#fefefe",
    "clusterBkg": "#fefefe",
    "clusterBorder": "#777778",
    "edgeLabelBackground": "#fefefe",
    "fontFamily": "Arial, Helvetica, sans-serif",
    "fontSize": "14px",
    "lineColor": "#777778",
    "primaryBorderColor": "#8a8a8b",
    "primaryColor": "#f1f1f1",
    "primaryTextColor": "#121212",
    "tertiaryTextColor": "#121212",
    "titleColor": "#121212",
}


def path_of(text: str) -> Path:
    return DRAWN / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.svg"


def drawing(text: str) -> str:
    return f'<div class="diagram">{path_of(text).read_text(encoding="utf-8").strip()}</div>'


def texts() -> list[str]:
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]
    return [text for page in pages for text in BLOCK.findall(page.read_text(encoding="utf-8"))]


def main() -> None:
    import json
    import subprocess
    import sys

    sys.path.insert(0, str(ROOT))
    from tests.support.browser import browser

    wanted = {path_of(text): text for text in texts()}
    DRAWN.mkdir(exist_ok=True)
    for path in set(DRAWN.glob("*.svg")) - set(wanted):
        path.unlink()
    build = ROOT / "build" / "mermaid"
    build.mkdir(parents=True, exist_ok=True)
    subprocess.run(["npm", "pack", "--silent", _MERMAID], cwd=build, check=True)
    subprocess.run(["tar", "-xzf", *build.glob("mermaid-*.tgz")], cwd=build, check=True)
    html = '<meta charset="utf-8"><script src="package/dist/mermaid.min.js"></script>'
    (build / "page.html").write_text(html, encoding="utf-8")
    options = {
        "flowchart": {"htmlLabels": False},
        "htmlLabels": False,
        "startOnLoad": False,
        "theme": "base",
        "themeVariables": _THEME,
    }
    with browser() as page:
        page.show(build / "page.html")
        page.value(f"mermaid.initialize({json.dumps(options)})")
        for path, text in wanted.items():
            if path.exists():
                continue
            name = f"diagram-{path.stem}"
            script = (
                f"mermaid.render({json.dumps(name)}, {json.dumps(text)}).then(made => made.svg)"
            )
            drawn = page.value(script)
            for colour, variable in _COLOURS.items():
                drawn = drawn.replace(colour, variable)
            path.write_text(drawn + "\n", encoding="utf-8")
            print(path.relative_to(ROOT))


if __name__ == "__main__":
    main()
