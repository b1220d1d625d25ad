"""The SDK's client, before it sends anything."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any, cast

import pytest

from bundler.artifacts.image.engine.transport import connect
from bundler.errors import ConfigurationError


@pytest.mark.parametrize("text", ["[]", '{"proxies": null}', '{"auths": null, "proxies": []}'])
def test_a_configuration_that_the_sdk_cannot_read_is_named(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ConfigurationError, match=f"{tmp_path}/config.json"):
        connect("unix:///nowhere", "1.41", cast(Any, nullcontext))
