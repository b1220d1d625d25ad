"""Headless Chromium, spoken to over two pipes in the DevTools protocol, without any library.

https://chromedevtools.github.io/devtools-protocol/; with ``--remote-debugging-pipe`` the browser
reads messages on descriptor 3 and writes them on 4, each ended by a zero byte.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class Browser:
    """A page in a running browser."""

    def __init__(self, read: int, write: int) -> None:
        self._read = os.fdopen(read, "rb", buffering=0)
        self._write = os.fdopen(write, "wb", buffering=0)
        self._rest = b""
        self._number = 0
        self._session: str | None = None
        self.events: list[dict[str, Any]] = []
        target = self("Target.createTarget", url="about:blank")["targetId"]
        attached = self("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self(f"{domain}.enable")

    def __call__(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Sends a command and returns its answer; events that come meanwhile are kept."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        self._write.write(json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                result: dict[str, Any] = answer["result"]
                return result
            self.events.append(answer)

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            more = self._read.read(1 << 20)
            assert more, "the browser has ended"
            self._rest += more
        raw, _, self._rest = self._rest.partition(b"\0")
        answer: dict[str, Any] = json.loads(raw)
        return answer

    def show(self, file: Path, *, width: int = 1280, dark: bool = False) -> None:
        """Opens a file, in a window of this width, and waits until it has loaded."""
        self.visit(file.resolve().as_uri(), width=width, dark=dark)

    def visit(self, url: str, *, width: int = 1280, dark: bool = False) -> None:
        """Opens an address, as `show` does a file."""
        self("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1,
             mobile=width < 600)  # fmt: skip
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self("Emulation.setEmulatedMedia", features=[scheme])
        self.events.clear()
        self("Page.navigate", url=url)
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self.events.append(self._next())

    def value(self, script: str) -> Any:
        """What a JavaScript expression is, in the page; what a promise is fulfilled with."""
        found = self("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def wait_for(self, condition: str, seconds: float = 120.0) -> None:
        """Waits until a JavaScript expression is true in the page, which draws itself."""
        left = int(seconds * 10)
        script = f"""new Promise(resolve => {{
            let left = {left};
            const timer = setInterval(() => {{
                const found = Boolean({condition});
                if (found || --left < 0) {{ clearInterval(timer); resolve(found); }}
            }}, 100);
        }})"""
        assert self.value(script), self.value("document.body.innerText")

    def screenshot(self, target: Path) -> None:
        """The whole page as a PNG."""
        shot = self("Page.captureScreenshot", captureBeyondViewport=True, format="png")
        target.write_bytes(base64.b64decode(shot["data"]))

    def close(self) -> None:
        self._read.close()
        self._write.close()

    @property
    def complaints(self) -> list[str]:
        """What the browser said of the page: errors, violations of its policy."""
        logged = [event["params"]["entry"]["text"] for event in self.events
                  if event["method"] == "Log.entryAdded"]  # fmt: skip
        thrown = [event["params"]["exceptionDetails"]["text"] for event in self.events
                  if event["method"] == "Runtime.exceptionThrown"]  # fmt: skip
        return logged + thrown

    @property
    def requests(self) -> list[str]:
        """Every address that the page asked for."""
        return [event["params"]["request"]["url"] for event in self.events
                if event["method"] == "Network.requestWillBeSent"]  # fmt: skip


@contextmanager
def browser() -> Iterator[Browser]:
    """Starts Chromium and ends it. Root has no sandbox there: the pages are our own."""
    to_read, to_write = os.pipe(), os.pipe()
    arguments = ["--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe"]
    arguments += ["--disable-dev-shm-usage", "--no-first-run", "--disable-background-networking"]
    # The browser wants its pipes on 3 and 4, wherever they are here.
    redirect = f'exec "$@" 3<&{to_read[0]} 4>&{to_write[1]}'
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
        process = subprocess.Popen(
            ["bash", "-c", redirect, "bash", "chromium", *arguments, f"--user-data-dir={home}"],
            pass_fds=(to_read[0], to_write[1]), env={**os.environ, "HOME": home},
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(to_read[0])
        os.close(to_write[1])
        page = Browser(to_write[0], to_read[1])
        try:
            yield page
        finally:
            page.close()
            process.terminate()
            process.wait(20)
