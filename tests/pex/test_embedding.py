"""What every destination promises: the name comes last, and a failure leaves what was there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from bundler.artifacts.embedding import Destination, EmbedRequest
from bundler.artifacts.image.add_layer import BaseImage
from bundler.artifacts.image.oci import LayoutDestination, source
from bundler.artifacts.open import open_artifact
from bundler.artifacts.python.pex import PexDestination
from bundler.artifacts.python.pex.file import PexArtifact
from bundler.artifacts.python.wheel import WheelDestination
from bundler.artifacts.verify import verify
from bundler.errors import BundlerError, VerificationFailed
from bundler.state.bundle import Bundle
from tests.support.bundles import make_bundle, make_record
from tests.support.layouts import LayoutMaker, code_layer
from tests.support.pex_projects import package, run_pex, wheel

# Makes a base, and gives a destination and the name by which its result is opened.
Kind = Callable[[Path], Iterator[tuple[Destination, str]]]


def pex(root: Path) -> Iterator[tuple[Destination, str]]:
    package(root / "src")
    run_pex("-D", "src", "-o", "plain.pex", cwd=root, root=root / "pex-root")
    with PexArtifact(root / "plain.pex") as plain:
        yield PexDestination(plain, root / "made" / "app.pex"), str(root / "made" / "app.pex")


def loose_pex(root: Path) -> Iterator[tuple[Destination, str]]:
    package(root / "src")
    run_pex("-D", "src", "--layout", "loose", "-o", "plain", cwd=root, root=root / "pex-root")
    with PexArtifact(root / "plain") as plain:
        yield PexDestination(plain, root / "made" / "app"), str(root / "made" / "app")


def a_wheel(root: Path) -> Iterator[tuple[Destination, str]]:
    plain = wheel(root / "plain")
    yield WheelDestination(plain, root / "made" / plain.name), str(root / "made" / plain.name)


def layout(root: Path) -> Iterator[tuple[Destination, str]]:
    with _base(root) as found:
        yield LayoutDestination(root / "made" / "x", "1", (found,)), f"oci:{root}/made/x:1"


def archive(root: Path) -> Iterator[tuple[Destination, str]]:
    with _base(root) as found:
        yield LayoutDestination(root / "made" / "x.tar", "1", (found,)), str(root / "made/x.tar")


def states_alone(root: Path) -> Iterator[tuple[Destination, str]]:
    yield LayoutDestination(root / "made" / "x", "1"), f"oci:{root}/made/x:1"


def _base(root: Path) -> AbstractContextManager[BaseImage]:
    maker = LayoutMaker(root / "base")
    maker.tag(maker.manifest([code_layer()], {"WorkingDir": "/app"}))
    return source(maker.path)


@pytest.mark.parametrize("kind", [pex, loose_pex, a_wheel, layout, archive, states_alone])
def test_the_name_comes_last_and_a_failure_keeps_what_was_there(kind: Kind, tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()
    first, second = bundle_of(tmp_path, "1"), bundle_of(tmp_path, "2")
    with contextmanager(kind)(tmp_path) as (destination, name):
        with pytest.raises(VerificationFailed), destination.embed(request(first)):
            raise VerificationFailed("It is not as it should be.")
        assert list((tmp_path / "made").iterdir()) == []

        with destination.embed(request(first)) as made:
            assert verify(made).all_problems == ()
            with pytest.raises(BundlerError):
                open_artifact(name)
        assert held(name) == {first.manifest.content_digest}

        with pytest.raises(KeyboardInterrupt), destination.embed(request(second)):
            raise KeyboardInterrupt
        assert held(name) == {first.manifest.content_digest}

        with destination.embed(request(second)):
            assert held(name) == {first.manifest.content_digest}
        assert held(name) == {second.manifest.content_digest}
    assert len(list((tmp_path / "made").iterdir())) == 1


def bundle_of(root: Path, text: str) -> Bundle:
    return make_bundle(root / f"state-{text}", {"A": {"state": text.encode()}})


def request(bundle: Bundle) -> EmbedRequest:
    return EmbedRequest((bundle,), make_record(bundle))


def held(name: str) -> set[str]:
    with open_artifact(name) as artifact:
        verdict = verify(artifact)
    assert verdict.all_problems == ()
    return {item.manifest.content_digest for item in verdict.directories if item.manifest}
