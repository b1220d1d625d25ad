"""Starts the worker, ``worker.py``: a script is compiled at every start, a module only once."""

import importlib.util
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def load_worker() -> "Any":
    """The module."""
    path = os.path.join(os.path.dirname(__file__), "worker.py")
    spec = importlib.util.spec_from_file_location("_state_bundler_worker", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} cannot be loaded.")
    worker = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(worker)
    return worker


if __name__ == "__main__":
    # The folder of this file has modules with the same names as projects' modules.
    if not getattr(sys.flags, "safe_path", False):  # from Python 3.11 on
        del sys.path[0]
    load_worker().main(sys.argv[1:])
