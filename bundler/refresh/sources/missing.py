"""A package that a project's components import and its interpreter does not have."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from bundler.project.environment_tools import how_to_add, how_to_install
from bundler.refresh.outcome.exchanges import Link
from bundler.system.installed import installed

if TYPE_CHECKING:
    from bundler.project.projects import Project

_NO_MODULE = re.compile(r"No module named '([\w.]+)'")
_OURS = "bundler"


def how_to_fix(project: Project, chain: Sequence[Link], image: str | None) -> str | None:
    """What to install where; None if nothing is missing.

    image: the one that the components are loaded in; None for the project's interpreter.
    """
    found = (
        _NO_MODULE.search(link.text)
        for link in chain
        if link.type.endswith(("ModuleNotFoundError", "ImportError"))
    )
    name = next((match[1] for match in found if match), "")
    module, _, below = name.partition(".")
    if not module or (below and module != _OURS):
        return None  # what is missing is in a package that was found
    where = image or project.interpreter.path
    if module == _OURS:
        what = f"The component imports state-bundler, which is not installed in {where}."
        if image is not None:
            return f"{what} Add it to the dependencies of the project, and build the image again."
        add = how_to_add(project.root, installed().requirement())
        return f"{what} It has no other dependencies at run time. Add it: {add}"
    if image is not None:
        return f"{module} is not installed in {where}. Install it there, and build the image again."
    return f"{module} is not installed in {where}. " + how_to_install(
        project.root, project.interpreter.found_by
    )
