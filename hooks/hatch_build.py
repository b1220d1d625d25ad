"""The hatchling build hook: ``[tool.hatch.build.hooks.state-bundler]``.

A wheel gets the verified state after hatchling has made it; a source distribution carries it, so
that a wheel built from that gets it, too. Where there is no state it warns and goes on, unless
``require = true``. ``[build-system] requires`` must name what was installed, such as a commit: see
``docs/how-to/wheel.md``.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from hatchling.plugin import hookimpl

if TYPE_CHECKING:
    from bundler.workflows.wheel_hook import PublishedFiles


class StateBundlerHook(BuildHookInterface):  # type: ignore[type-arg]  # generic in its stubs only
    """Named ``state-bundler`` in the configuration."""

    PLUGIN_NAME = "state-bundler"

    def initialize(
        self,
        version: str,  # hatchling's signature
        build_data: dict[str, Any],
    ) -> None:
        if self._concerns(version):
            self._found = self._published()
            if self.target_name == "sdist":
                files = {str(path): relative for path, relative in self._found.files()}
                build_data.setdefault("force_include", {}).update(files)

    def finalize(
        self,
        version: str,
        build_data: dict[str, Any],  # noqa: ARG002  # hatchling's signature
        artifact_path: str,
    ) -> None:
        if self._concerns(version) and self.target_name == "wheel" and self._found.bundles:
            wheel = Path(artifact_path)
            self._run(self._embed, wheel, spoilt=wheel)

    def _embed(self, wheel: Path) -> None:
        from bundler.artifacts.embedding import EmbedRequest
        from bundler.artifacts.python.wheel import WheelDestination

        request = EmbedRequest(self._found.bundles, self._found.record)
        with WheelDestination(wheel, wheel).embed(request):
            pass

    def _concerns(self, version: str) -> bool:
        """An editable wheel holds no files: the program finds the state where it is."""
        return self.target_name in ("sdist", "wheel") and version != "editable"

    def _published(self) -> PublishedFiles:
        from bundler.workflows.wheel_hook import published

        found: PublishedFiles = self._run(published, Path(self.root))
        for path in found.missing:
            what = f"{path} contains no state"
            if self.config.get("require"):
                self.app.abort(f"{what}. Run: state-bundler refresh")
            self.app.display_warning(f"{what}, so the {self.target_name} ships without it.")
        return found

    def _run(self, function: Any, *arguments: Any, spoilt: Path | None = None) -> Any:
        """An expected failure is a sentence in hatchling's own words, not a traceback.

        spoilt: what hatchling has made by then, and nobody may find without its state.
        """
        from bundler.errors import BundlerError

        try:
            return function(*arguments)
        except BundlerError as error:
            if spoilt is not None:
                spoilt.unlink(missing_ok=True)
            self.app.abort(f"{error.what} {error.hint}".strip(), code=error.exit_code)


@hookimpl
def hatch_register_build_hook() -> type[StateBundlerHook]:
    """The entry point that hatchling looks for."""
    return StateBundlerHook
