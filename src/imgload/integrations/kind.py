"""``kind load``, argument by argument, as kind's own commands have it (kind, pkg/cmd/kind/load)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import partial

import attrs

from imgload.clusters.kind import kind_nodes
from imgload.connect import Connections
from imgload.engines.base import Container, Engine, EngineKind
from imgload.errors import (
    ClusterAmbiguous,
    ClusterNotFound,
    EngineUnreachable,
    NodeNotFound,
    ReferenceInvalid,
    UsageError,
)
from imgload.events import Event, ImageFound, SendingStarted
from imgload.integrations.arguments import Command, Flag, Given, find, parse, parse_known
from imgload.integrations.tool import HandOver, Help, Request, Story, Tool
from imgload.nodes.node import Node
from imgload.parallel import in_parallel
from imgload.reference import Reference
from imgload.report import ImageResult, Report

_QUIET = Flag("quiet", "q", "bool")
_VERBOSITY = Flag("verbosity", "v", "int32")
_WHERE = (Flag("name", "n"), Flag("nodes", "", "list"))
_IMAGE = Command(("docker-image",), _WHERE)
_ARCHIVE = Command(("image-archive",), _WHERE)
_LOAD = Command(("load",), below=(_IMAGE, _ARCHIVE))
_KIND = Command(("kind",), shared=(_VERBOSITY, _QUIET), below=(_LOAD,))
_DEFAULT_NAME = "kind"
_PROVIDER = "KIND_EXPERIMENTAL_PROVIDER"
_SUPPORTED: tuple[EngineKind, ...] = ("docker", "podman")
"""In the order in which kind looks for them."""
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
    homepage = "https://kind.sigs.k8s.io"

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

    def select(self, connections: Connections, request: Request, cluster: str) -> Sequence[Node]:
        """Return a cluster's nodes; Docker's, when both engines have such a cluster, as kind."""
        engines = [e for e in connections.engines if request.engine in {None, e.name}]
        if not engines:
            raise EngineUnreachable(
                f"{_PROVIDER} is {request.engine}, and no {request.engine} answers",
                hint="start it, or say where it is with DOCKER_HOST or CONTAINER_HOST",
            )
        answers = in_parallel([partial(kind_nodes, engine) for engine in engines])
        clusters = list(zip(engines, answers, strict=True))
        there = [(e, c[cluster]) for e, c in clusters if cluster in c]
        nodes = [Node(c.name, e, c) for e, cs in _nearest(cluster, there) for c in cs]
        if not nodes:
            raise _no_cluster(cluster, clusters)
        return _named(nodes, request.nodes)

    def story(self, request: Request) -> Story:
        """Return who tells of a request in kind's words."""
        return _Story({_normal(image): image for image in request.images})


def _only_load(given: Given) -> Help:
    if given.words:
        raise UsageError(
            f'unknown command {_quoted(given.words[0])} for "kind load"', hint="kind load --help"
        )
    return Help(_HELP[_LOAD.name], error="Subcommand is required")


def _request(command: str, given: Given, environ: Mapping[str, str]) -> Request:
    provider = environ.get(_PROVIDER, "")
    engine = next((kind for kind in _SUPPORTED if kind == provider), None)
    words = tuple(dict.fromkeys(given.words))
    files = tuple("./-" if word == "-" else word for word in given.words)
    archives = command == _ARCHIVE.name
    return Request(
        clusters=(given.last("name", environ.get("KIND_CLUSTER_NAME") or _DEFAULT_NAME),),
        images=() if archives else words,
        archives=files if archives else (),
        nodes=given.flags.get("nodes", ()),
        engine=engine,
        verbosity=given.last("verbosity", 0),
        notes=tuple(_notes(provider, many=archives and len(files) > 1, known=engine is not None)),
    )


def _notes(provider: str, *, many: bool, known: bool) -> Iterator[str]:
    if many:
        yield _MANY
    if known:
        yield f"using {provider} due to {_PROVIDER}"
    elif provider:
        yield f"ignoring unknown value {_quoted(provider)} for {_PROVIDER}"


Nodes = tuple[Engine, list[Container]]


def _nearest(cluster: str, there: Sequence[Nodes]) -> Sequence[Nodes]:
    """Return the one engine that runs a cluster, of the kind that kind would ask first."""
    for kind in _SUPPORTED:
        fitting = [each for each in there if each[0].name == kind]
        if len(fitting) > 1:
            listed = " and ".join(str(engine.endpoint) for engine, _ in fitting)
            raise ClusterAmbiguous(
                f"there are two clusters {_quoted(cluster)}: on {listed}",
                hint="say which engine is meant with DOCKER_HOST or CONTAINER_HOST",
            )
        if fitting:
            return fitting
    return ()


def _no_cluster(
    cluster: str, clusters: Sequence[tuple[Engine, Mapping[str, object]]]
) -> ClusterNotFound:
    listed = ", ".join(f"{name} ({engine.name})" for engine, names in clusters for name in names)
    places = " and ".join(str(engine.endpoint) for engine, _ in clusters)
    return ClusterNotFound(
        f"no nodes found for cluster {_quoted(cluster)} on {places}; there: {listed or 'none'}",
        hint="name one of those with --name" if listed else "kind create cluster",
    )


def _named(nodes: Sequence[Node], names: Sequence[str]) -> Sequence[Node]:
    by_name = {node.name: node for node in nodes}
    for name in names:
        if name not in by_name:
            raise NodeNotFound(
                f"unknown node: {_quoted(name)}; there: {', '.join(by_name)}",
                hint="name some of those with --nodes A,B",
            )
    return [by_name[name] for name in dict.fromkeys(names)] or nodes


def _normal(image: str) -> str:
    try:
        return Reference.parse(image).record
    except ReferenceInvalid:
        return image


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


@attrs.define
class _Story(Story):
    """What kind says of images, with the names that it was given; of archives it says nothing."""

    names: Mapping[str, str]
    _ids: dict[str, str] = attrs.field(factory=dict)
    _told: set[tuple[str, str]] = attrs.field(factory=set)

    def tell(self, event: Event) -> Iterator[str]:
        """Yield a line for each image that a node lacks, once."""
        if isinstance(event, ImageFound):
            self._ids[event.reference] = str(event.image_id or "")
        elif isinstance(event, SendingStarted) and self.names:
            fresh = {(event.node, reference) for reference in event.references} - self._told
            self._told |= fresh
            for node, reference in sorted(fresh):
                image = self._image(reference)
                yield f"Image: {image} not yet present on node {_quoted(node)}, loading..."

    def conclude(self, report: Report) -> Iterator[str]:
        """Yield a line for each image that was there."""
        for image in report.images if self.names else ():
            yield from self._conclude(image)

    def _conclude(self, image: ImageResult) -> Iterator[str]:
        for node in image.nodes:
            if node.action == "tagged":
                yield (
                    f"Image with ID: {image.image_id} already present on the node {node.node} but"
                    f" is missing the tag {image.reference}. re-tagging..."
                )
        if all(node.action == "present" for node in image.nodes):
            told = self._image(image.reference)
            yield f"Image: {told} found to be already present on all nodes."

    def _image(self, reference: str) -> str:
        name = self.names.get(reference, reference)
        return f"{_quoted(name)} with ID {_quoted(self._ids.get(reference, ''))}"
