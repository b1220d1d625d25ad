"""More patches: the processes that a component starts with `multiprocessing` are watched, too.

A forked one has the patches of the component's process. A spawned one, and the server of forks (the
default from Python 3.14 on), is a new Python. Runs inside the component's process: the standard
library only.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bundler.worker.recorder import Recorder
    from bundler.worker.wrapping import Call, Patch

_START = os.path.join(os.path.dirname(os.path.abspath(__file__)), "start.py")


def _bootstrap(recorder: Recorder, call: Call) -> Any:
    process, run = call.of, call.of.run  # a subclass may have its own

    # Python prints an exception, and the process that waits for it continues.
    def reporting() -> None:
        try:
            run()
        except Exception as error:
            if not process.daemon:
                recorder.died(error)
            raise

    process.run = reporting
    return call()


def _look(recorder: Recorder, call: Call) -> Any:
    code = call()
    if code and code > 0:  # else it runs, has succeeded, or was ended by a signal
        recorder.looked_at_exit()
    return code


def _spawn(recorder: Recorder, call: Call) -> Any:
    words = call.argument(0, "args")
    code = words.index("-c") + 1 if "-c" in words else 0
    if code and recorder.path and "resource_tracker" not in words[code]:
        watch = f"['load_worker']().record_spawned({recorder.path!r}); "
        words[code] = f"import runpy; runpy.run_path({_START!r}){watch}{words[code]}"
    return call()


PATCHES: tuple[Patch, ...] = (
    ("multiprocessing.process", "BaseProcess", "_bootstrap", _bootstrap),
    ("multiprocessing.process", "BaseProcess", "exitcode", _look),
    ("multiprocessing.util", "", "spawnv_passfds", _spawn),
)
