"""As much of Kubernetes' API as a client needs that starts jobs and asks what became of them.

A job's pod is a container of the tests' engine: image, arguments, variables and host paths are the
job's own. What a real API server refuses in names and labels, this one refuses as well.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.support.engine import Engine

_JOBS = re.compile(r"/apis/batch/v1/namespaces/shop/jobs(?:/(?P<name>[^/]+)/status)?")
# https://kubernetes.io/docs/concepts/overview/working-with-objects/
_LABEL = re.compile(r"([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?")
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


@dataclass
class Cluster:
    """The namespace ``shop``. config_maps: the folders that stand for them, by their names.

    jobs: the command of each job that was started, by its name.
    """

    engine: Engine
    config_maps: Mapping[str, Path]
    jobs: dict[str, list[str]] = field(default_factory=dict)

    def start(self, job: Mapping[str, Any]) -> tuple[int, Any]:
        """Starts the job's pod as a container that uses the machine's network."""
        name, pod = job["metadata"]["name"], job["spec"]["template"]
        labels = {**job["metadata"]["labels"], **pod["metadata"]["labels"]}
        wrong = [value for value in labels.values() if not _LABEL.fullmatch(value)]
        if wrong or not _NAME.fullmatch(name):
            return 422, {"message": f"invalid: {name} {wrong}"}
        (container,) = pod["spec"]["containers"]
        paths = {item["name"]: self._path(item) for item in pod["spec"]["volumes"]}
        variables = [f"--env={item['name']}={item['value']}" for item in container["env"]]
        volumes = [
            f"--volume={paths[mount['name']] / mount.get('subPath', '')}:{mount['mountPath']}"
            for mount in container["volumeMounts"]
        ]
        options = ["--detach", "--network=host", f"--name={name}", *variables, *volumes]
        self.jobs[name] = container["args"]
        self.engine.docker("run", *options, container["image"], *container["args"])
        return 201, job

    def _path(self, volume: Mapping[str, Any]) -> Path:
        if "configMap" in volume:
            return self.config_maps[volume["configMap"]["name"]]
        return Path(volume["hostPath"]["path"])

    def status(self, name: str) -> tuple[int, Any]:
        if name not in self.jobs:
            return 404, {"message": "not found"}
        ask = ("inspect", "--format", "{{.State.Running}} {{.State.ExitCode}}", name)
        running, code = self.engine.docker(*ask).stdout.decode().split()
        what = "active" if running == "true" else "failed" if code != "0" else "succeeded"
        return 200, {"metadata": {"name": name}, "status": {what: 1}}


@contextmanager
def cluster(engine: Engine, config: Path, config_maps: Mapping[str, Path]) -> Iterator[Cluster]:
    """A cluster for as long as this lasts. config: where to write the ``kubeconfig`` for it."""
    found = Cluster(engine, config_maps)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            self.answer(*found.start(body))

        def do_GET(self) -> None:
            asked = _JOBS.fullmatch(self.path)
            self.answer(*found.status(asked["name"]) if asked else (404, {}))

        def answer(self, code: int, body: Any) -> None:
            raw = json.dumps(body).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever).start()
    config.write_text(json.dumps(_kubeconfig(f"http://127.0.0.1:{server.server_port}")))
    try:
        yield found
    finally:
        server.shutdown()
        server.server_close()
        for name in found.jobs:
            engine.docker("rm", "--force", name, check=False)


def _kubeconfig(url: str) -> Mapping[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "here", "cluster": {"server": url}}],
        "users": [{"name": "me", "user": {}}],
        "contexts": [{"name": "it", "context": {"cluster": "here", "user": "me"}}],
        "current-context": "it",
    }
