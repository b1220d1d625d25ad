"""Components that only work in the image, where /etc/only-here is."""

import json
import os
import subprocess
import threading
import time
import urllib.request
from pathlib import Path


class Config:
    management_type = "LOCAL_FILESYSTEM"
    refresh_if_dev = True

    def __init__(self, key):
        self.key = key


class Part:
    def __init__(self, name):
        self.name = name

    @property
    def defs_state_config(self):
        return Config(f"Part[{self.name}]")

    def write_state_to_path(self, state_path):
        getattr(self, self.name)(state_path)

    def good(self, path):
        reported = {"file": Path("/etc/only-here").read_text(), "user": os.getuid()}
        reported |= {name: os.environ[name] for name in ("VENDOR_REGION", "FROM_FILE", "HOME", "OWN")}
        path.write_text(json.dumps(reported))

    def tree(self, path):
        path.mkdir()
        (path / "a").write_text("1")
        (path / "deep").mkdir()
        (path / "deep" / "b").write_text("2" * 100000)
        (path.parent / "beside").write_text("x")

    def link(self, path):
        path.symlink_to("/etc/passwd")

    def fifo(self, path):
        path.mkdir()
        os.mkfifo(path / "pipe")

    def its_path(self, path):
        path.write_text(str(path))

    def secret(self, path):
        path.write_text(os.environ["VENDOR_TOKEN"])

    def asks(self, path):
        urllib.request.urlopen(os.environ["VENDOR_URL"] + "/v1", timeout=5)

    def raises(self, path):
        print("so far so good")
        raise RuntimeError("no " + os.environ["VENDOR_TOKEN"])

    def hangs(self, path):
        subprocess.Popen(["sleep", "77"], start_new_session=True)
        time.sleep(77)


if "THREAD" in os.environ:  # then forking is not safe
    threading.Thread(target=time.sleep, args=(600,), daemon=True).start()


def parts():
    return [Part(name) for name in os.environ["PARTS"].split()]
