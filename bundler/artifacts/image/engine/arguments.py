"""The arguments of ``docker build``: which of them say where the result goes.

They are the user's, and go to docker as they are, except those that would give a name to an
image without its state: ``-t``, ``--push``, ``--load``, ``-o``, ``--iidfile``,
``--metadata-file`` and ``-q``. These are carried out with the finished image.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from bundler.errors import UsageError
from bundler.system.wording import nearest

# Options of docker build 20.10 and of buildx 0.29 that take a value. Any other option is a switch,
# unless its value follows a "=".
_WITH_VALUE = {
    *("--add-host", "--allow", "--annotation", "--attest", "--build-arg", "--build-context"),
    *("--builder", "--cache-from", "--cache-to", "--call", "--cgroup-parent", "--cpu-period"),
    *("--cpu-quota", "-c", "--cpu-shares", "--cpuset-cpus", "--cpuset-mems", "-f", "--file"),
    *("--iidfile", "--isolation", "--label", "-m", "--memory", "--memory-swap"),
    *("--metadata-file", "--network", "--no-cache-filter", "-o", "--output", "--platform"),
    *("--policy", "--progress", "--provenance", "--sbom", "--secret", "--security-opt", "--set"),
    *("--shm-size", "--ssh", "-t", "--tag", "--target", "--ulimit"),
}
_SWITCHES = {
    *("--check", "--compress", "--debug", "--disable-content-trust", "--force-rm", "--help"),
    *("--load", "--no-cache", "--print", "--pull", "--push", "--quiet", "--rm", "--squash"),
}
_SHORT = {"-t": "--tag", "-o": "--output", "-f": "--file", "-q": "--quiet"}
_WITHHELD = {
    *("--tag", "--push", "--load", "--output", "--iidfile", "--metadata-file", "--quiet"),
}
# The outputs whose images have names.
_NAMED = {"docker", "image", "oci", "registry"}
# The fields of an output that say what the image is like, wherever it goes.
_SHAPES = ("annotation", "compression", "force-compression", "oci-mediatypes", "rewrite-timestamp")
# As Go reads a switch's value, in lower case.
TRUE, _FALSE = {"1", "t", "true"}, {"0", "f", "false"}
_GLOBAL_WITH_VALUE = {
    *("--config", "-c", "--context", "-H", "--host", "-l", "--log-level"),
    *("--tlscacert", "--tlscert", "--tlskey"),
}


@dataclass(frozen=True)
class Arguments:
    """A parsed command line.

    forwarded: without the context, the Dockerfile and the options for the result. context: a
    folder, a URL, or ``-``. file: the Dockerfile as given. tags, outputs: of ``--tag`` and
    ``--output``. asks: whether nothing is built, because docker only checks or explains the
    Dockerfile.
    """

    forwarded: tuple[str, ...] = ()
    context: str = "."
    file: str | None = None
    target: str | None = None
    tags: tuple[str, ...] = ()
    platforms: tuple[str, ...] = ()
    push: bool = False
    load: bool = False
    quiet: bool = False
    outputs: tuple[str, ...] = ()
    iidfile: str | None = None
    metadata_file: str | None = None
    asks: bool = False

    def given(self, option: str) -> Iterator[str]:
        """The values of a forwarded option."""
        for position, word in enumerate(self.forwarded):
            name, equals, value = word.partition("=")
            if name == option:
                yield value if equals else self.forwarded[position + 1]

    @property
    def results(self) -> list[dict[str, str]]:
        """The fields of each output; ``--push``, ``--load`` and the default are outputs, too."""
        found = [fields_of(output) for output in self.outputs]
        if self.push:
            images = ("image", "registry")
            if not any(it.get("type") in images for it in found):
                found.append({"type": "image"})
            found = [{**it, "push": "true"} if it.get("type") in images else it for it in found]
        loads = self.load and all(it.get("type") != "docker" for it in found)
        return found + [{"type": "docker"}] * (loads or not found)

    def names_of(self, outputs: Iterable[Mapping[str, str]]) -> tuple[str, ...]:
        """The names that the image gets in some of its outputs; ``--tag`` replaces their own."""
        own = (it.get("name", "").split(",") for it in outputs if it.get("type") in _NAMED)
        names = (self.tags or each for each in own)
        return tuple(dict.fromkeys(name for each in names for name in each if name))

    @property
    def image_name(self) -> str:
        """All its names, as docker's metadata has them."""
        return ",".join(self.names_of(self.results))

    @property
    def names(self) -> tuple[str, ...]:
        """Its names in the engine, from where they are also pushed."""
        return self.names_of(it for it in self.results if "dest" not in it)

    @property
    def pushed(self) -> list[dict[str, str]]:
        """The outputs that go to a registry."""
        return [it for it in self.results if pushes(it)]

    @property
    def shapes(self) -> list[dict[str, str]]:
        """The different wishes of the outputs about the image itself, such as its compression."""
        found: list[dict[str, str]] = []
        for fields in self.results:
            shape = {name: it for name, it in fields.items() if name.startswith(_SHAPES)}
            if fields.get("type") in _NAMED and shape not in found:
                found.append(shape)
        return found

    @property
    def shape(self) -> dict[str, str]:
        return next(iter(self.shapes), {})

    @property
    def stays(self) -> bool:
        """Whether the image is also wanted on this machine: in the engine or in a file."""
        return any("dest" in it or it.get("type") == "docker" for it in self.results)

    @property
    def only_files(self) -> bool:
        """Whether the engine has the image only until its files are written."""
        return not self.iidfile and all("dest" in it for it in self.results)


def pushes(fields: Mapping[str, str]) -> bool:
    return fields.get("type") == "registry" or is_on("push", fields.get("push"))


def fields_of(output: str) -> dict[str, str]:
    """Parses ``type=docker,dest=app.tar``; a plain path is a local folder, ``-`` an archive on
    stdout."""
    import csv

    if "=" not in output:
        return {"type": "tar" if output == "-" else "local", "dest": output}
    pairs = (part.partition("=") for part in next(csv.reader([output])))
    return {name.strip(): value for name, _, value in pairs}


def output_of(fields: Mapping[str, object]) -> str:
    """The opposite of `fields_of`."""
    import csv

    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(f"{name}={it}" for name, it in fields.items())
    return line.getvalue()


def is_on(name: str, value: str | None) -> bool:
    """What the value of a switch means; None for one that is not given.

    Raises `UsageError` for a value that docker would refuse, if it saw the option.
    """
    if value is None or value.lower() in _FALSE:
        return False
    if value.lower() not in TRUE:
        raise UsageError(f"{name}={value}: the value of a switch is true or false.")
    return True


@dataclass
class FoundWords:
    """What is on a command line. values: of the options, by their long names.

    forwarded: see `Arguments`. positional: the contexts.
    """

    forwarded: list[str] = field(default_factory=list)
    positional: list[str] = field(default_factory=list)
    values: dict[str, list[str]] = field(default_factory=dict)

    def take(self, name: str, value: str) -> None:
        self.values.setdefault(_SHORT.get(name, name), []).append(value)

    def all(self, name: str) -> tuple[str, ...]:
        return tuple(self.values.get(name, ()))

    def last(self, name: str) -> str | None:
        return next(iter(self.all(name)[-1:]), None)

    def on(self, name: str) -> bool:
        """Raises as `is_on` does."""
        return is_on(name, self.last(name))

    def asks(self) -> bool:
        """Whether docker would describe the build instead of running it."""
        prints = self.last("--print") or "false"  # older: the name of a description
        called = self.last("--call") or "build"
        return self.on("--check") or called != "build" or prints.lower() not in _FALSE


def parse(arguments: Sequence[str]) -> Arguments:
    """Parses the command line after ``build``.

    Raises `UsageError` for an option without its value, and unless there is exactly one context.
    """
    found = read(arguments)
    wants_help = found.on("--help") or found.on("-h")
    if len(found.positional) != 1 and not wants_help:
        raise UsageError(
            f"docker build takes one context, but it got {len(found.positional) or 'none'}.",
            hint="This is usually the current directory: state-bundler build docker -t NAME .",
        )
    return Arguments(
        forwarded=tuple(found.forwarded),
        context=found.positional[0] if found.positional else ".",
        file=found.last("--file"),
        target=found.last("--target"),
        tags=found.all("--tag"),
        platforms=tuple(it for it in ",".join(found.all("--platform")).split(",") if it),
        push=found.on("--push"),
        load=found.on("--load"),
        quiet=found.on("--quiet"),
        outputs=found.all("--output"),
        iidfile=found.last("--iidfile"),
        metadata_file=found.last("--metadata-file"),
        asks=found.asks(),
    )


def read(arguments: Sequence[str]) -> FoundWords:
    """The words of a command line. Raises `UsageError` for an option without its value."""
    found = FoundWords()
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        if word == "--":
            found.positional += rest
            break
        if word.startswith("-") and word != "-":
            _option(found, word, rest)
        else:
            found.positional.append(word)
    return found


def _option(found: FoundWords, word: str, rest: list[str]) -> None:
    """Consumes one option and its value."""
    name, equals, value = word.partition("=")
    words = [word]
    if not word.startswith("--") and word[2:]:
        if word[:2] in _WITH_VALUE:  # -tNAME
            name, equals, value = word[:2], "=", word[2:].removeprefix("=")
        elif word[2] != "=":  # -qD, -qtNAME: a switch, and what follows it
            _option(found, word[:2], rest)
            _option(found, f"-{word[2:]}", rest)
            return
    if not equals and name in _WITH_VALUE:
        if not rest:
            raise UsageError(f"{name} requires a value.")
        value = rest.pop(0)
        words.append(value)
    elif not equals:
        value = "true"
    found.take(name, value)
    long_name = _SHORT.get(name, name)
    if long_name not in _WITHHELD and long_name != "--file":
        found.forwarded += words


def split_own(
    arguments: Sequence[str],
    takes_value: Mapping[str, bool],
    prefix: str = "--",
    program: str = "docker bundle build",
) -> tuple[list[str], list[str]]:
    """Separates our options from docker's: returns ours and theirs.

    takes_value: for each of our options, as ``--name``, whether it has a value. prefix: of our
    options here, such as ``--bundle-``. program: whose help lists them. After ``--`` everything is
    docker's. Raises `UsageError` for a misspelt option of ours that docker does not have.
    """
    rest = list(arguments)
    ours: list[str] = []
    theirs: list[str] = []
    while rest:
        word = rest.pop(0)
        if word == "--":
            theirs += rest
            break
        name, equals, _ = word.partition("=")
        mine = f"--{name.removeprefix(prefix)}" if name.startswith(prefix) else ""
        if mine in takes_value:
            ours.append(mine + word.removeprefix(name))
            if takes_value[mine] and not equals and rest:
                ours.append(rest.pop(0))
            continue
        _refuse_misspelt(name, takes_value, prefix, program)
        theirs.append(word)
        if word in _WITH_VALUE and rest:
            theirs.append(rest.pop(0))
    return ours, theirs


def _refuse_misspelt(name: str, ours: Iterable[str], prefix: str, program: str) -> None:
    """docker would refuse it, too, but only after the refresh."""
    is_meant = prefix != "--" and name.startswith(prefix)
    if not name.startswith("--") or name in _WITH_VALUE or name in _SWITCHES:
        return
    near = nearest(name, [prefix + own[2:] for own in ours], 0.6 if is_meant else 0.8)
    if near or is_meant:
        hint = f"Did you mean {near}?" if near else f"See {program} --help."
        raise UsageError(f"Unknown option {name}.", hint=hint)


def split_options(arguments: Sequence[str]) -> tuple[tuple[str, ...], list[str]]:
    """docker's global options at the front of a command line, and the rest."""
    rest = list(arguments)
    options: list[str] = []
    while rest and rest[0].startswith("-"):
        word = rest.pop(0)
        options.append(word)
        if word in _GLOBAL_WITH_VALUE and rest:
            options.append(rest.pop(0))
    return tuple(options), rest
