"""``--push`` without buildx: the engine pushes, once all that is to be pushed was read back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bundler.artifacts.embedding import EmbedRequest
from bundler.artifacts.image import registry
from bundler.artifacts.image.engine.arguments import parse
from bundler.artifacts.verify import verify
from bundler.errors import ChildFailed, VerificationFailed
from tests.support import registries
from tests.support.bundles import make_record
from tests.support.dockerprojects import Project
from tests.support.embedding import build_image

pytestmark = pytest.mark.engine(offline=True)

FROM_SCRATCH = "FROM scratch\nWORKDIR /app\nCOPY src /app/src\nENV PYTHONPATH=/app/src\n"


def refuse(artifact: Any) -> None:
    raise VerificationFailed(f"{artifact.name} is not as it should be.")


@pytest.mark.parametrize("buildkit", ["0", "1"])
def test_a_push_without_buildx(buildkit: str, project: Project, tmp_path: Path) -> None:
    project.write("Dockerfile", FROM_SCRATCH)
    docker = project.docker(0, buildkit)
    bundle = project.new_state()
    with registries.running() as remote:
        names = [f"{remote.host}/team/shop:1", f"{remote.host}/other/shop:2"]
        metadata = tmp_path / "metadata.json"
        words = ["--push", "-t", names[0], "-t", names[1], "--metadata-file", str(metadata)]
        words.append(str(project.root))
        request = EmbedRequest((bundle,), make_record(bundle))
        with pytest.raises(VerificationFailed):
            build_image(parse(words), request, docker, check=refuse)
        assert remote.log == []
        assert not project.engine.has_image(names[0])

        built = project.build(*words[:-1], docker=docker)
        reported = json.loads(metadata.read_bytes())
        assert reported["containerimage.config.digest"] == built.image_id
        for name in names:
            with registry.open_image(name) as artifact:
                assert verify(artifact).all_problems == ()
                assert artifact.image.manifest["config"]["digest"] == built.image_id
                assert artifact.digest == reported["containerimage.digest"]
        puts = [line for line in remote.log if line.startswith("PUT")]
        assert [line.rpartition(" ")[2] for line in puts if "/manifests/" in line] == [
            "/v2/team/shop/manifests/1",
            "/v2/other/shop/manifests/2",
        ]
        assert "/manifests/" in puts[-1]

        tags = dict(remote.tags)
        remote.fault = lambda *asked: 500 if "manifests" in asked[2] else None
        with pytest.raises(ChildFailed, match="docker push") as failure:
            project.build(*words[:-1], docker=docker)
        assert failure.value.exit_code == 1
        assert remote.tags == tags
    project.engine.docker("image", "rm", *names)
