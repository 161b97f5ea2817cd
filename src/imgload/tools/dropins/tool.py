"""The load commands of kind and k3d: arguments, messages and help.

kind, pkg/cmd/kind/load and pkg/cmd/kind/app; k3d, cmd/image/imageImport.go. Both parse arguments by
the rules of cobra's ``Command.Find`` and pflag's ``FlagSet.Parse``: flags may stand anywhere,
``-nNAME`` and ``-n=NAME`` are ``-n NAME``, names cannot be abbreviated, and ``--`` ends the flags.
argparse and click differ in each of these and in their messages.
"""

from __future__ import annotations

import json
import re
import shlex
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from itertools import product, takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from imgload.core.errors import ReferenceInvalid, UsageError
from imgload.loader.events import Event, ImageFound, SendingStarted
from imgload.loader.report import Report
from imgload.oci.reference import Reference

if TYPE_CHECKING:
    from imgload.engines.endpoint import EngineKind

_BOOLS = dict.fromkeys(("1", "t", "T", "TRUE", "true", "True"), True)
_BOOLS |= dict.fromkeys(("0", "f", "F", "FALSE", "false", "False"), False)
_NUMBER = re.compile(r"[+-]?\w+", re.ASCII)
_OCTAL = re.compile(r"^([+-]?)0_?(?=[0-7])")
_FIELD = re.compile(r'(?:^|,)("(?:[^"]|"")*"|[^",]*)')
_INT32 = range(-(1 << 31), 1 << 31)


def quoted(text: str) -> str:
    """Quote a text like Go's ``%q``."""
    return json.dumps(text, ensure_ascii=False)


def to_bool(text: str) -> bool:
    if text not in _BOOLS:
        raise ValueError(f"strconv.ParseBool: parsing {quoted(text)}: invalid syntax")
    return _BOOLS[text]


def to_int32(text: str) -> int:
    """Parse a number in Go's syntax: ``0x1F``, ``0b1``, and ``010`` is eight."""
    try:
        number = int(_OCTAL.sub(r"\g<1>0o", text) if _NUMBER.fullmatch(text) else "", 0)
    except ValueError:
        raise ValueError(f"strconv.ParseInt: parsing {quoted(text)}: invalid syntax") from None
    if number not in _INT32:
        raise ValueError(f"strconv.ParseInt: parsing {quoted(text)}: value out of range")
    return number


def to_list(text: str) -> list[str]:
    """Parse comma-separated values, which may be quoted (Go's encoding/csv)."""
    matches = list(_FIELD.finditer(text)) if text else []
    if "".join(match[0] for match in matches) != text:
        raise ValueError('parse error: bare or extraneous "')
    fields = (match[1] for match in matches)
    return [f[1:-1].replace('""', '"') if f.startswith('"') else f for f in fields]


@attrs.frozen
class Flag:
    """A flag; `alone` is its value if no value follows (pflag's NoOptDefVal).

    If `convert` returns lists, those of several occurrences are joined; otherwise the last counts.
    """

    name: str
    short: str = ""
    convert: Callable[[str], Any] = str
    alone: str = ""

    def __str__(self) -> str:
        return f"-{self.short}, --{self.name}" if self.short else f"--{self.name}"


switch = partial(Flag, convert=to_bool, alone="true")
Commands = Mapping[tuple[str, ...], Sequence[Flag]]
"""The flags of each command, by its path below the program; the program's own path is empty."""


def find(commands: Commands, arguments: Sequence[str]) -> tuple[tuple[str, ...], list[str]]:
    """Return the path of the command, and the other arguments; unknown flags take a value."""
    path: tuple[str, ...] = ()
    rest, index = list(arguments), 0
    while index < len(rest) and (text := rest[index]) != "--":
        if text and text[0] != "-":
            if (*path, text) not in commands:
                break
            path, index = (*path, rest.pop(index)), 0
            continue
        flag = _spellings(commands[path]).get(text)
        takes_value = text.startswith("--") or len(text) == len("-n")
        index += 2 if takes_value and "=" not in text and not (flag and flag.alone) else 1
    return path, rest


def _spellings(flags: Iterable[Flag]) -> dict[str, Flag]:
    return {text: flag for flag in flags for text in (f"--{flag.name}", f"-{flag.short}")}


def parse(
    flags: Iterable[Flag], arguments: Iterable[str], unknown: Flag | None = None
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return the values by flag, and the words; `unknown` stands for every flag not in `flags`."""
    spellings, rest = _spellings(flags), deque(arguments)
    values: dict[str, Any] = {}
    words: list[str] = []
    while rest and (text := rest.popleft()) != "--":
        if text == "-" or not text.startswith("-"):
            words.append(text)
            continue
        for flag, value in _occurrences(text, rest, spellings, unknown):
            try:
                converted = flag.convert(value)
            except ValueError as error:
                message = f'invalid argument {quoted(value)} for "{flag}" flag: {error}'
                raise UsageError(message) from error
            if isinstance(converted, list):
                converted = values.get(flag.name, []) + converted
            values[flag.name] = converted
    return values, (*words, *rest)


def _occurrences(
    text: str, rest: deque[str], spellings: Mapping[str, Flag], unknown: Flag | None
) -> Iterator[tuple[Flag, str]]:
    """Yield the flags of one argument with their values; a value may be the next argument."""
    if text.startswith("--"):
        name, equals, value = text.partition("=")
        if name[2:3] in {"", "-"}:
            raise UsageError(f"bad flag syntax: {text}")
        if (flag := spellings.get(name, unknown)) is None:
            raise UsageError(f"unknown flag: {name}")
        yield flag, value if equals else flag.alone or _next_value(rest, name)
        return
    letters = text[1:]
    while letters:
        position = f"{letters[0]!r} in -{letters}"
        if (flag := spellings.get(f"-{letters[0]}", unknown)) is None:
            raise UsageError(f"unknown shorthand flag: {position}")
        letters = letters[1:]
        if len(letters) > 1 and letters[0] == "=":
            yield flag, letters[1:]
            return
        yield flag, flag.alone or letters or _next_value(rest, position)
        if not flag.alone:
            return


def _next_value(rest: deque[str], text: str) -> str:
    if not rest:
        raise UsageError(f"flag needs an argument: {text}")
    return rest.popleft()


@attrs.frozen
class Request:
    """A load command of another tool, with names as typed; no nodes or engine stand for all.

    Standard input is an archive, too, if `piped`. From verbosity 1 on the verification is shown,
    and below 0 only warnings and errors.
    """

    clusters: tuple[str, ...]
    images: tuple[str, ...] = ()
    archives: tuple[str, ...] = ()
    piped: bool = False
    nodes: tuple[str, ...] = ()
    engine: EngineKind | None = None
    verbosity: int = 0
    notes: tuple[str, ...] = ()


@attrs.frozen
class Help:
    """The help text is requested, or printed with an error."""

    error: str = ""


@attrs.frozen
class HandOver:
    """A command for the real program; `why` is the reason if it is not obvious."""

    why: str = ""


Meaning = Request | Help | HandOver


@attrs.frozen(eq=False)
class Tool:
    """Another program: the drop-in does its command `takes`, and `makes` creates a cluster.

    `interpret` gets the command, its flags, its words and the environment. It and `understand`
    raise UsageError with the program's own messages.
    """

    name: str
    takes: str
    homepage: str
    name_flag: str
    makes: str
    help: str
    commands: Commands
    interpret: Callable[[str, Mapping[str, Any], tuple[str, ...], Mapping[str, str]], Meaning]
    story: Callable[[Sequence[str]], KindStory | K3dStory]

    def understand(self, arguments: Sequence[str], environ: Mapping[str, str]) -> Meaning:
        path, rest = find(self.commands, arguments)
        if len([self.name, *path]) < len(self.takes.split()):
            return HandOver()
        try:
            flags, words = parse([switch("help", "h"), *self.commands[path]], rest)
            if flags.get("help"):
                return Help()
            return self.interpret(path[-1], flags, words, environ)
        except UsageError as error:
            hint = error.hint or shlex.join([self.name, *path, "--help"])
            raise UsageError(error.message, hint=hint) from error

    def is_quiet(self, arguments: Sequence[str]) -> bool:
        """Whether ``--quiet`` is among the arguments; kind checks it before all other flags."""
        quiet = [flag for flag in self.commands[()] if flag.name == "quiet"]
        before_help = takewhile(lambda text: text not in {"--help", "-h"}, arguments)
        with suppress(UsageError):
            flags, _ = parse(quiet, before_help, unknown=Flag("unknown", alone="true"))
            return bool(flags.get("quiet"))
        return False


_PROVIDER = "KIND_EXPERIMENTAL_PROVIDER"
_ENGINES: dict[str, EngineKind] = {"docker": "docker", "podman": "podman"}
_NERDCTL = {"nerdctl", "finch", "nerdctl.lima"}
_SEVERAL_ARCHIVES = (
    "It is suggested that you save multiple images into a common archive and load that instead of"
    " loading multiple archives for better performance"
)
_MISSING = {
    "docker-image": "a list of image names is required",
    "image-archive": "name of image archive is required",
}
_KIND_FLAGS = (Flag("verbosity", "v", to_int32), switch("quiet", "q"))
_SELECTION = (*_KIND_FLAGS, Flag("name", "n"), Flag("nodes", convert=to_list))
_KIND_HELP = """\
Loads images into nodes, sends only missing layers, and verifies every node

Usage:
  kind load docker-image IMAGE... [flags]
  kind load image-archive ARCHIVE... [flags]

IMAGE is a name or ID of an image in Docker or Podman. If they have different images under a name,
the image of the engine that runs the cluster is loaded. ARCHIVE is a docker-archive, an OCI archive
or an OCI layout folder; an archive may be compressed with gzip or zstd.

Flags:
  -n, --name NAME      the cluster (default: $KIND_CLUSTER_NAME, or "kind")
      --nodes A,B      only these nodes
  -q, --quiet          silence all stderr output
  -v, --verbosity N    from 1 on, show the verification of each node
  -h, --help           this text

This is imgload's drop-in for kind: every other command goes to the real kind.
"""


def _interpret_kind(
    command: str, flags: Mapping[str, Any], words: tuple[str, ...], environ: Mapping[str, str]
) -> Meaning:
    if command == "load" and not words:
        return Help("Subcommand is required")
    if command == "load":
        raise UsageError(f'unknown command {quoted(words[0])} for "kind load"')
    if not words:
        raise UsageError(_MISSING[command])
    provider = environ.get(_PROVIDER, "")
    if provider in _NERDCTL:
        return HandOver(f"{_PROVIDER} is {provider}, and imgload supports only Docker and Podman")
    archives = words if command == "image-archive" else ()
    notes = [_SEVERAL_ARCHIVES] if len(archives) > 1 else []
    if provider in _ENGINES:
        notes.append(f"using {provider} due to {_PROVIDER}")
    elif provider:
        notes.append(f"ignoring unknown value {quoted(provider)} for {_PROVIDER}")
    return Request(
        clusters=(flags.get("name", environ.get("KIND_CLUSTER_NAME") or "kind"),),
        images=() if archives else tuple(dict.fromkeys(words)),
        archives=archives,
        nodes=tuple(flags.get("nodes", ())),
        engine=_ENGINES.get(provider),
        verbosity=flags.get("verbosity", 0),
        notes=tuple(notes),
    )


@attrs.define(eq=False, repr=False)
class KindStory:
    """kind's own messages about images, which it names as typed; it has none about archives."""

    images: Sequence[str]
    _ids: dict[str, str] = attrs.field(factory=dict)
    _reported: set[tuple[str, str]] = attrs.field(factory=set)

    def tell(self, event: Event) -> Iterator[str]:
        """Yield the lines for an event; several threads call it."""
        if isinstance(event, ImageFound):
            self._ids[event.reference] = str(event.image_id or "")
        elif isinstance(event, SendingStarted) and self.images:
            new = {(event.node, reference) for reference in event.references} - self._reported
            self._reported |= new
            for node, reference in sorted(new):
                image = self._describe(reference)
                yield f"Image: {image} not yet present on node {quoted(node)}, loading..."

    def conclude(self, report: Report) -> Iterator[str]:
        """Yield the lines for a successful load."""
        for image in report.images if self.images else ():
            for node in image.nodes:
                if node.action == "tagged":
                    yield (
                        f"Image with ID: {image.image_id} already present on the node {node.node}"
                        f" but is missing the tag {image.reference}. re-tagging..."
                    )
            if all(node.action == "present" for node in image.nodes):
                described = self._describe(image.reference)
                yield f"Image: {described} found to be already present on all nodes."

    def _describe(self, reference: str) -> str:
        name = next((typed for typed in self.images if _full_name(typed) == reference), reference)
        return f"{quoted(name)} with ID {quoted(self._ids.get(reference, ''))}"


def _full_name(image: str) -> str:
    with suppress(ReferenceInvalid):
        return Reference.parse(image).record
    return image


_MODES = ("auto", "direct", "tools", "tools-node")
"""k3d's help calls the last one ``tools``, and its code ``tools-node``."""
_K3D_FLAGS = tuple(map(switch, ("verbose", "trace", "timestamps")))
_IGNORED = (switch("keep-tarball", "k"), switch("keep-tools", "t"), Flag("mode", "m"))
_IMPORT = (*_K3D_FLAGS, *_IGNORED, Flag("cluster", "c", lambda text: [text]))
_K3D_HELP = """\
Imports images into the nodes of clusters, sends only missing layers, and verifies every node

Usage:
  k3d image import [IMAGE | ARCHIVE]... [flags]

IMAGE is a name or ID of an image in Docker or Podman. ARCHIVE is a docker-archive or OCI archive,
optionally compressed with gzip or zstd, or - for standard input. A file takes precedence over an
image of the same name.

Aliases:
  import, load

Flags:
  -c, --cluster NAME   a cluster; may be repeated (default: k3s-default)
  -k, --keep-tarball   ignored: imgload writes no tarball
  -t, --keep-tools     ignored: imgload starts no tools container
  -m, --mode MODE      ignored: auto, direct and tools are the same
      --verbose        show the verification of each node
  -h, --help           this text

This is imgload's drop-in for k3d: every other command goes to the real k3d.
"""


def _interpret_k3d(
    _command: str, flags: Mapping[str, Any], words: tuple[str, ...], _environ: Mapping[str, str]
) -> Request:
    if not words:
        raise UsageError("requires at least 1 arg(s), only received 0")
    if (mode := flags.get("mode", _MODES[-1])) not in _MODES:
        raise UsageError(f"Unknown image loading mode '{mode}'", hint="leave --mode out")
    words = tuple(dict.fromkeys(words))
    piped = words == ("-",)
    files = tuple(word for word in words if Path(word).is_file() and not piped)
    return Request(
        clusters=tuple(dict.fromkeys(flags.get("cluster", ["k3s-default"]))),
        images=tuple(word for word in words if word not in files and not piped),
        archives=files,
        piped=piped,
        verbosity=int(any(flags.get(flag) for flag in ("verbose", "trace"))),
    )


class K3dStory:
    """k3d's own messages."""

    def tell(self, event: Event) -> Iterator[str]:
        if isinstance(event, SendingStarted):
            names = " ".join(event.references)
            yield f"Importing images '[{names}]' into node '{event.node}'..."

    def conclude(self, report: Report) -> Iterator[str]:
        yield f"Successfully imported {len(report.images)} image(s)"


KIND = Tool(
    name="kind",
    takes="kind load",
    homepage="https://kind.sigs.k8s.io",
    name_flag="--name",
    makes="kind create cluster",
    help=_KIND_HELP,
    commands={
        (): _KIND_FLAGS,
        ("load",): _KIND_FLAGS,
        ("load", "docker-image"): _SELECTION,
        ("load", "image-archive"): _SELECTION,
    },
    interpret=_interpret_kind,
    story=KindStory,
)
K3D = Tool(
    name="k3d",
    takes="k3d image import",
    homepage="https://k3d.io",
    name_flag="--cluster",
    makes="k3d cluster create",
    help=_K3D_HELP,
    commands={
        (): (switch("version"), *_K3D_FLAGS),
        **dict.fromkeys([("image",), ("images",)], _K3D_FLAGS),
        **dict.fromkeys(product(("image", "images"), ("import", "load")), _IMPORT),
    },
    interpret=_interpret_k3d,
    story=lambda _images: K3dStory(),
)
