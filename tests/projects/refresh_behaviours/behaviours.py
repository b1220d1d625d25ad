"""Components that do what they should not; BEHAVIOURS names those that take part."""

import asyncio
import atexit
import gzip
import io
import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
import weakref
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor, as_completed, wait
from contextlib import suppress
from functools import partial
from pathlib import Path

from bundler.component import DefsStateConfig, StateBackedComponent

if "THREAD" in os.environ:  # as some clients' modules do: the worker may not fork any more
    threading.Thread(target=time.sleep, args=(600,), daemon=True).start()

if "PROCESS" in os.environ:  # the worker's own, which its forks must leave alone
    multiprocessing.Process(target=time.sleep, args=(600,), daemon=True).start()
    weakref.finalize(threading.Thread, len, "")

# Where a behaviour leaves word of the processes that it has started.
PIDS = Path(os.environ.get("PIDS", os.devnull))


class Odd(StateBackedComponent):
    def __init__(self, behaviour):
        self._behaviour = behaviour

    @property
    def defs_state_config(self):
        return DefsStateConfig(f"Odd[{self._behaviour.__name__}]")

    def build_defs_from_state(self, context, state_path):
        return None

    def write_state_to_path(self, state_path):
        return self._behaviour(state_path)


def good(path):
    path.write_text(json.dumps([1, 2, 3]))


def waits_for_word(path):
    while not Path(os.environ["WORD"]).exists():
        time.sleep(0.02)
    good(path)


def stubborn(path):
    """Ignores SIGTERM, and so do its child and a daemon in its own session."""
    code = (
        "import os, signal, sys, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "if sys.argv[1] == 'daemon' and os.fork() == 0:\n"
        "    os.setsid()\n"
        "    if os.fork(): os._exit(0)\n"
        "open(sys.argv[2], 'a').write(f'{os.getpid()} ')\n"
        "time.sleep(600)\n"
    )
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    for kind in ("child", "daemon"):
        subprocess.Popen([sys.executable, "-c", code, kind, str(PIDS)])
    with PIDS.open("a") as stream:
        stream.write(f"{os.getpid()} ")
    time.sleep(600)


def leaves_a_daemon(path):
    good(path)
    process = subprocess.Popen(["sleep", "600"], start_new_session=True)
    PIDS.write_text(f"{process.pid}")


ROWS = [{"id": number} for number in range(10_000)]
left = []  # until the process ends


def leaves_a_file_open(path):
    left.append(path.open("w"))
    json.dump(ROWS, left[-1])


def leaves_compressed_text_open(path):
    left.append(io.TextIOWrapper(gzip.open(path, "wb", 1)))
    json.dump(ROWS, left[-1])


def leaves_a_thread(path):
    threading.Thread(target=writes_slowly, args=(path,)).start()
    wait_for(path)


def leaves_a_pool(path):
    left.append(ThreadPoolExecutor())
    left[-1].submit(writes_slowly, path)
    wait_for(path)


def leaves_a_process_of_python(path):
    multiprocessing.get_context("fork").Process(target=writes_slowly, args=(path,)).start()
    wait_for(path)


def leaves_it_to_the_end(path):
    path.write_text("[1]")
    atexit.register(path.write_text, json.dumps(ROWS))


def leaves_it_to_a_finalizer(path):
    path.write_text("[1]")
    weakref.finalize(Odd, path.write_text, json.dumps(ROWS))


def leaves_it_to_the_end_of_a_manager(path):
    global manager
    manager = multiprocessing.Manager()
    path.write_text("[1]")
    shared = manager.list(ROWS)
    atexit.register(lambda: path.write_text(json.dumps(list(shared))))


def fails_while_a_program_writes(path):
    leaves_a_program_writing(path)
    raise RuntimeError("not now")


def leaves_a_program_writing(path):
    subprocess.Popen(["sh", "-c", 'printf "[1, "; sleep 600'], stdout=path.open("wb"))
    while not path.stat().st_size:
        time.sleep(0.01)


def leaves_a_fork(path):
    good(path)
    read, _end = os.pipe()
    if os.fork() == 0:
        os.read(read, 1)


def fails_in_a_thread(path):
    def fetch():
        raise RuntimeError("not now")

    good(path)
    threading.Thread(target=fetch).start()


def fails(*_):
    raise RuntimeError("not now")


def fails_in_a_task(path):
    async def fetch():
        fails()

    async def main():
        good(path)
        asyncio.get_running_loop().create_task(fetch())
        await asyncio.sleep(0)

    return main()


def fails_in_a_future(path):
    good(path)
    with ThreadPoolExecutor() as pool:
        pool.submit(fails)


async def passes_on():
    with ThreadPoolExecutor() as pool:
        await asyncio.wrap_future(pool.submit(fails))


async def passes_on_as_another():
    try:
        await asyncio.create_task(passes_on())
    except RuntimeError as error:
        raise RuntimeError("not now, either") from error


def fails_in_what_a_task_waits_for(path):
    """Each looks at the one inside, and nothing at the outermost."""

    async def main():
        good(path)
        await asyncio.wait([asyncio.create_task(passes_on_as_another())])

    return main()


def fails_in_a_task_group(path):
    async def group():
        async with asyncio.TaskGroup() as tasks:  # from Python 3.11 on; before, this fails, too
            tasks.create_task(passes_on())

    async def main():
        good(path)
        await asyncio.wait([asyncio.create_task(group())])

    return main()


def fails_in_an_executor(path):
    async def main():
        good(path)
        with ThreadPoolExecutor() as pool:
            asyncio.get_running_loop().run_in_executor(pool, fails)
        await asyncio.sleep(0.01)

    return main()


def fails_in_the_loop_of_a_thread(path):
    good(path)
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()
    left.append(asyncio.run_coroutine_threadsafe(passes_on(), loop))
    wait([left[-1]])


def fails_in_a_process(path):
    good(path)
    process = multiprocessing.get_context("fork").Process(target=fails)
    process.start()
    process.join()


class Fetching(multiprocessing.get_context("spawn").Process):
    run = fails


def fails_in_its_own_process(path):
    good(path)
    process = Fetching()
    process.start()
    process.join()


def asks_nobody(_):
    with suppress(OSError):
        urllib.request.urlopen("http://127.0.0.1:9/", timeout=5)


def hides_a_refusal_in_processes(method):
    def behaviour(path):
        good(path)
        with multiprocessing.get_context(method).Pool(1) as pool:
            pool.map(asks_nobody, [1])

    behaviour.__name__ = f"hides_a_refusal_in_a_{method}"
    return behaviour


hides_a_refusal_in_a_fork = hides_a_refusal_in_processes("fork")
hides_a_refusal_in_a_spawn = hides_a_refusal_in_processes("spawn")
hides_a_refusal_in_a_forkserver = hides_a_refusal_in_processes("forkserver")


def asks_in_vain(url):
    with suppress(OSError):
        urllib.request.urlopen(url)


def gives_up_on(kind):
    """Waits a moment for a server that does not answer."""

    def behaviour(path):
        good(path)
        with socket.create_server(("127.0.0.1", 0)) as server:
            url = f"http://127.0.0.1:{server.getsockname()[1]}/"
            asking = kind(target=asks_in_vain, args=(url,), daemon=True)
            asking.start()
            left.append(server.accept()[0])
            left[-1].recv(1)
            asking.join(0.01)

    return behaviour


gives_up_on_a_thread = gives_up_on(threading.Thread)
gives_up_on_a_thread.__name__ = "gives_up_on_a_thread"
gives_up_on_a_process = gives_up_on(multiprocessing.get_context("fork").Process)
gives_up_on_a_process.__name__ = "gives_up_on_a_process"


def looks_at_what_fails(path):
    """What it does not use, it has looked at."""

    async def fetch():
        fails()

    async def main():
        await asyncio.gather(fetch(), fetch(), return_exceptions=True)
        await asyncio.wait([task := asyncio.ensure_future(fetch())])
        task.exception()

    with ThreadPoolExecutor() as pool:
        pool.submit(fails).exception()
        with suppress(RuntimeError):
            list(pool.map(fails, range(1)))
    with multiprocessing.get_context("fork").Pool(1) as processes, suppress(RuntimeError):
        processes.map(fails, [1])
    good(path)
    return main()


def repeats_what_fails(path):
    """Several fail together; it sees one of them, and repeats all."""

    async def fetch():
        fails()

    async def results(tasks_of):
        return [await it for it in tasks_of([asyncio.ensure_future(fetch()) for _ in range(3)])]

    async def waits_too_briefly():
        await asyncio.wait_for(asyncio.get_running_loop().run_in_executor(None, late.result), 0.01)

    def pooled(kind, **options):
        with kind(2, **options) as pool:
            return list(pool.map(fails, range(4)))

    def submitted(order):
        with ThreadPoolExecutor(2) as pool:
            return [it.result() for it in order([pool.submit(fails) for _ in range(4)])]

    async def shares():
        shared = asyncio.ensure_future(fetch())
        await asyncio.gather(*(asyncio.wait_for(shared, 1) for _ in range(3)))

    async def cancels():
        async def fails_to_close():
            try:
                await asyncio.sleep(1)
            finally:
                fails()

        task = asyncio.ensure_future(fails_to_close())
        await asyncio.sleep(0)
        if hasattr(task, "cancelling"):  # from Python 3.11 on
            task.cancel()

    context = multiprocessing.get_context("fork")
    late = Future()
    threading.Timer(0.1, late.set_exception, [RuntimeError("late")]).start()
    for attempt in (
        *(partial(submitted, order) for order in (iter, as_completed)),
        partial(pooled, ThreadPoolExecutor),
        partial(pooled, ProcessPoolExecutor, mp_context=context),
        *(
            lambda order=order: asyncio.run(results(order))
            for order in (iter, asyncio.as_completed)
        ),
        *(lambda it=it: asyncio.run(it()) for it in (waits_too_briefly, shares, cancels)),
    ):
        with suppress(RuntimeError, TimeoutError, asyncio.TimeoutError):
            attempt()
    process = context.Process(target=fails)
    process.start()
    process.join()
    assert process.exitcode == 1
    good(path)


def writes_slowly(path):
    with path.open("w") as stream:
        for part in json.JSONEncoder().iterencode(ROWS[:200]):
            stream.write(part)
            stream.flush()
            time.sleep(0.0001)
    path.write_text(json.dumps(ROWS))


def wait_for(path):
    while not path.exists():
        time.sleep(0.001)


def alters_another(path):
    other = path.parent.parent / "Odd__good__"
    wait_for(other / "state")
    wait_for(Path(os.environ["WORD"]))
    (other / "state").write_text("[4]")
    good(path)


def becomes_a_link(path):
    good(path)
    path.parent.rename(path.parent.with_name("elsewhere"))
    path.parent.symlink_to("elsewhere")


def exits(path):
    good(path)
    os._exit(3)


def says_exit(path):
    sys.exit("the vendor is tired")


def is_killed(path):
    os.kill(os.getpid(), signal.SIGKILL)


def divides(path):
    print("about to divide", flush=True)
    return 1 / 0


def prints_a_secret(path):
    token = os.environ["VENDOR_TOKEN"]
    print(f"Authorization: Bearer {token}", flush=True)
    raise RuntimeError(f"https://me:{token}@vendor.example.org/?t={token} \x1b[31m is down")


def needs_a_variable(path):
    path.write_text(os.environ["NOBODY_SETS_THIS"])


def chatters(path):
    for _ in range(1000):
        print("x" * 10_000)
    good(path)


def writes_nothing(path):
    pass


def writes_an_empty_list(path):
    path.write_text("[]")


def writes_elsewhere(path):
    (path.parent / "other").write_text("1")


def writes_a_link(path):
    path.symlink_to("/etc/passwd")


def writes_a_fifo(path):
    path.mkdir()
    os.mkfifo(path / "pipe")


def writes_a_socket(path):
    path.mkdir()
    os.chdir(path)  # a socket's name may not be long
    socket.socket(socket.AF_UNIX).bind("s")


def writes_a_device(path):
    path.mkdir()
    os.mknod(path / "null", 0o600 | 0o020000, os.makedev(1, 3))


def writes_a_secret(path):
    path.write_text(json.dumps({"url": f"https://x/?t={os.environ['VENDOR_TOKEN']}", "n": [1]}))


def writes_its_path(path):
    path.write_text(json.dumps([str(path)]))


def writes_litter(path):
    project = path.parent / "project"
    for name in (".git/config", ".venv/pyvenv.cfg", "logs/dbt.log", "__pycache__/a.pyc", "empty/x"):
        file = project / name
        file.parent.mkdir(parents=True)
        file.write_text("x")
    (project / "empty" / "x").unlink()
    (project / ".env").write_text("PASSWORD=x")
    (project / "model.sql").write_text("select 1")
    (project / "warehouse.duckdb").write_text("db")
    path.touch()


def writes_many(path):
    path.mkdir()
    for number in range(300):
        (path / str(number)).write_text("x")


def fails_in_async(path):
    async def fetch():
        raise ConnectionRefusedError(111, "Connection refused")

    return fetch()


def chosen():
    return [Odd(globals()[name]) for name in os.environ["BEHAVIOURS"].split()]
