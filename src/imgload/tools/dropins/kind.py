"""``kind load``, with the same arguments and messages as kind's (kind, pkg/cmd/kind/load)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import attrs

from imgload.core.errors import ReferenceInvalid, UsageError
from imgload.loader.events import Event, ImageFound, SendingStarted
from imgload.loader.report import Report
from imgload.oci.reference import Reference
from imgload.tools.dropins.pflag import (
    Command,
    Flag,
    ParsedArgs,
    find,
    parse,
    parse_known,
    quoted,
)
from imgload.tools.dropins.tool import HandOver, Help, Reporter, Request, Tool

if TYPE_CHECKING:
    from imgload.engines.endpoint import EngineKind

_PROVIDER = "KIND_EXPERIMENTAL_PROVIDER"
_QUIET = Flag("quiet", "q", "bool")
_VERBOSITY = Flag("verbosity", "v", "int32")
_SELECTION = (Flag("name", "n"), Flag("nodes", "", "list"))
_IMAGE = Command(("docker-image",), _SELECTION)
_ARCHIVE = Command(("image-archive",), _SELECTION)
_LOAD = Command(("load",), subcommands=(_IMAGE, _ARCHIVE))
_KIND = Command(("kind",), shared=(_VERBOSITY, _QUIET), subcommands=(_LOAD,))
_DEFAULT_NAME = "kind"
_SUPPORTED: tuple[EngineKind, ...] = ("docker", "podman")
_NERDCTL = {"nerdctl", "finch", "nerdctl.lima"}
_SEVERAL_ARCHIVES = (
    "It is suggested that you save multiple images into a common archive and load that instead of"
    " loading multiple archives for better performance"
)
_HELP = """\
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
_MISSING = {
    "docker-image": "a list of image names is required",
    "image-archive": "name of image archive is required",
}


class Kind(Tool):
    """The drop-in for kind."""

    name = "kind"
    takes = "kind load"
    homepage = "https://kind.sigs.k8s.io"
    label = "io.x-k8s.kind.cluster"
    name_flag = "--name"
    makes = "kind create cluster"

    def understand(
        self, arguments: Sequence[str], environ: Mapping[str, str]
    ) -> Request | Help | HandOver:
        path, rest = find(_KIND, arguments)
        if len(path) == 1:
            return HandOver()
        args, command = parse(path, rest), path[-1].name
        if args.last("help", default=False):
            return Help(_HELP)
        if path[-1] is _LOAD:
            if not args.words:
                return Help(_HELP, error="Subcommand is required")
            raise UsageError(
                f'unknown command {quoted(args.words[0])} for "kind load"', hint="kind load --help"
            )
        if not args.words:
            raise UsageError(_MISSING[command], hint=f"kind load {command} --help")
        if (provider := environ.get(_PROVIDER)) in _NERDCTL:
            return HandOver(
                f"{_PROVIDER} is {provider}, and imgload supports only Docker and Podman"
            )
        return _request(args, environ, archives=path[-1] is _ARCHIVE)

    def is_quiet(self, arguments: Sequence[str]) -> bool:
        """Whether ``--quiet`` is among the arguments; kind checks it before all other flags."""
        try:
            return bool(parse_known(arguments, _QUIET).last("quiet", default=False))
        except UsageError:
            return False

    def story(self, request: Request) -> Reporter:
        return KindStory.of(request.images)


def _request(args: ParsedArgs, environ: Mapping[str, str], *, archives: bool) -> Request:
    provider = environ.get(_PROVIDER, "")
    engine = next((kind for kind in _SUPPORTED if kind == provider), None)
    notes = [_SEVERAL_ARCHIVES] if archives and len(args.words) > 1 else []
    if engine:
        notes.append(f"using {provider} due to {_PROVIDER}")
    elif provider:
        notes.append(f"ignoring unknown value {quoted(provider)} for {_PROVIDER}")
    return Request(
        clusters=(args.last("name", environ.get("KIND_CLUSTER_NAME") or _DEFAULT_NAME),),
        images=() if archives else tuple(dict.fromkeys(args.words)),
        archives=args.words if archives else (),
        nodes=args.flags.get("nodes", ()),
        engine=engine,
        verbosity=args.last("verbosity", 0),
        notes=tuple(notes),
    )


@attrs.define
class KindStory(Reporter):
    """kind's own messages about images, which it names as typed; it has none about archives."""

    names: Mapping[str, str]
    _ids: dict[str, str] = attrs.field(factory=dict)
    _reported: set[tuple[str, str]] = attrs.field(factory=set)

    @classmethod
    def of(cls, images: Iterable[str]) -> KindStory:
        """Return the reporter for images as typed."""
        return cls({_full_name(image): image for image in images})

    def tell(self, event: Event) -> Iterator[str]:
        if isinstance(event, ImageFound):
            self._ids[event.reference] = str(event.image_id or "")
        elif isinstance(event, SendingStarted) and self.names:
            new = {(event.node, reference) for reference in event.references} - self._reported
            self._reported |= new
            for node, reference in sorted(new):
                image = self._describe(reference)
                yield f"Image: {image} not yet present on node {quoted(node)}, loading..."

    def conclude(self, report: Report) -> Iterator[str]:
        for image in report.images if self.names else ():
            for node in image.nodes:
                if node.action == "tagged":
                    yield (
                        f"Image with ID: {image.image_id} already present on the node {node.node}"
                        f" but is missing the tag {image.reference}. re-tagging..."
                    )
            if all(node.action == "present" for node in image.nodes):
                description = self._describe(image.reference)
                yield f"Image: {description} found to be already present on all nodes."

    def _describe(self, reference: str) -> str:
        name = self.names.get(reference, reference)
        return f"{quoted(name)} with ID {quoted(self._ids.get(reference, ''))}"


def _full_name(image: str) -> str:
    try:
        return Reference.parse(image).record
    except ReferenceInvalid:
        return image
