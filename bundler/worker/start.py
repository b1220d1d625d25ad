"""Starts the worker, ``worker.py``: a script is compiled at every start, a module only once."""

import importlib.util
import os
import sys


def _main() -> None:
    # The folder of this file has modules with the same names as projects' modules.
    if not getattr(sys.flags, "safe_path", False):  # from Python 3.11 on
        del sys.path[0]
    path = os.path.join(os.path.dirname(__file__), "worker.py")
    spec = importlib.util.spec_from_file_location("_state_bundler_worker", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} cannot be loaded.")
    worker = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(worker)
    worker.main(sys.argv[1:])


if __name__ == "__main__":
    _main()
