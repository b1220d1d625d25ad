"""What docker asks of a plugin at every ``docker --help``; imports as little as possible."""

from bundler.version import __version__


def metadata() -> str:
    """The plugin's metadata as JSON; docker rejects any other schema version."""
    return (
        '{"SchemaVersion":"0.1.0","Vendor":"state-bundler",'
        f'"Version":"{__version__}",'
        '"ShortDescription":"Build images with the state of external systems baked in"}'
    )
