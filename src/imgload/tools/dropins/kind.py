"""``kind load``, argument by argument, as kind's own commands have it (kind, pkg/cmd/kind/load)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from imgload.core.errors import UsageError
from imgload.tools.dropins.pflag import (
    Command,
    Flag,
    Given,
    find,
    parse,
    parse_known,
    quoted,
)
from imgload.tools.dropins.tool import HandOver, Help, Request, Story, Tool

if TYPE_CHECKING:
    from imgload.engines.endpoint import EngineKind

_PROVIDER = "KIND_EXPERIMENTAL_PROVIDER"
_QUIET = Flag("quiet", "q", "bool")
_VERBOSITY = Flag("verbosity", "v", "int32")
_WHERE = (Flag("name", "n"), Flag("nodes", "", "list"))
_IMAGE = Command(("docker-image",), _WHERE)
_ARCHIVE = Command(("image-archive",), _WHERE)
_LOAD = Command(("load",), below=(_IMAGE, _ARCHIVE))
_KIND = Command(("kind",), shared=(_VERBOSITY, _QUIET), below=(_LOAD,))
_DEFAULT_NAME = "kind"
_SUPPORTED: tuple[EngineKind, ...] = ("docker", "podman")
_NERDCTL = {"nerdctl", "finch", "nerdctl.lima"}
_MANY = (
    "It is suggested that you save multiple images into a common archive and load that instead of"
    " loading multiple archives for better performance"
)
_FLAGS = """\
Flags:
  -n, --name NAME      the cluster (default: $KIND_CLUSTER_NAME, or "kind")
      --nodes A,B      only these nodes
  -q, --quiet          silence all stderr output
  -v, --verbosity N    from 1 on, show what was proven on each node
  -h, --help           this text

This is imgload in kind's place: any other command goes to the real kind.
"""
_HELP = {
    "load": f"""\
Loads images into nodes; only what they lack is sent, and what they have is proven

Usage:
  kind load docker-image IMAGE... [flags]
  kind load image-archive ARCHIVE... [flags]

{_FLAGS}""",
    "docker-image": f"""\
Loads images from the engines on this machine into all or specified nodes

Usage:
  kind load docker-image IMAGE... [flags]

IMAGE is a name or an image ID, in Docker or Podman. Where they have different images under a name,
the one is taken whose engine runs the cluster.

{_FLAGS}""",
    "image-archive": f"""\
Loads the images of archives into all or specified nodes

Usage:
  kind load image-archive ARCHIVE... [flags]

ARCHIVE is a docker-archive, an OCI archive or an OCI layout folder, also with gzip or zstd.

{_FLAGS}""",
}
_MISSING = {
    "docker-image": "a list of image names is required",
    "image-archive": "name of image archive is required",
}


class Kind(Tool):
    """kind."""

    name = "kind"
    takes = "kind load"
    homepage = "https://kind.sigs.k8s.io"
    label = "io.x-k8s.kind.cluster"
    name_flag = "--name"
    makes = "kind create cluster"

    def understand(
        self, arguments: Sequence[str], environ: Mapping[str, str]
    ) -> Request | Help | HandOver:
        """Return what a command line means."""
        path, rest = find(_KIND, arguments)
        if len(path) == 1:
            return HandOver()
        given, command = parse(path, rest), path[-1].name
        if given.last("help", default=False):
            return Help(_HELP[command])
        if command == _LOAD.name:
            return _only_load(given)
        if not given.words:
            raise UsageError(_MISSING[command], hint=f"kind load {command} --help")
        if (provider := environ.get(_PROVIDER)) in _NERDCTL:
            return HandOver(f"{_PROVIDER} is {provider}, and imgload knows Docker and Podman only")
        return _request(command, given, environ)

    def silenced(self, arguments: Sequence[str]) -> bool:
        """Whether ``--quiet`` is anywhere, as kind finds out before it reads anything else."""
        try:
            return bool(parse_known(arguments, _QUIET).last("quiet", default=False))
        except UsageError:
            return False

    def story(self, request: Request) -> Story:
        """Return who tells of a request in kind's words."""
        from imgload.tools.dropins.kind_messages import KindStory  # noqa: PLC0415 - start-up

        return KindStory.of(request.images)


def _only_load(given: Given) -> Help:
    if given.words:
        raise UsageError(
            f'unknown command {quoted(given.words[0])} for "kind load"', hint="kind load --help"
        )
    return Help(_HELP[_LOAD.name], error="Subcommand is required")


def _request(command: str, given: Given, environ: Mapping[str, str]) -> Request:
    provider = environ.get(_PROVIDER, "")
    engine = next((kind for kind in _SUPPORTED if kind == provider), None)
    words = tuple(dict.fromkeys(given.words))
    archives = command == _ARCHIVE.name
    return Request(
        clusters=(given.last("name", environ.get("KIND_CLUSTER_NAME") or _DEFAULT_NAME),),
        images=() if archives else words,
        archives=given.words if archives else (),
        nodes=given.flags.get("nodes", ()),
        engine=engine,
        verbosity=given.last("verbosity", 0),
        notes=tuple(
            _notes(provider, many=archives and len(given.words) > 1, known=engine is not None)
        ),
    )


def _notes(provider: str, *, many: bool, known: bool) -> Iterator[str]:
    if many:
        yield _MANY
    if known:
        yield f"using {provider} due to {_PROVIDER}"
    elif provider:
        yield f"ignoring unknown value {quoted(provider)} for {_PROVIDER}"
