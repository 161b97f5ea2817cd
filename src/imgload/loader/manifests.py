"""The names of images in Kubernetes manifests."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator, Sequence
from typing import Any

from imgload.clusters.kubectl import run_kubectl
from imgload.core import trace
from imgload.core.errors import ClusterError, UsageError, one_line
from imgload.core.files import read_input
from imgload.core.yaml import read_documents
from imgload.loader.entries import ImageEntry
from imgload.loader.session import Session
from imgload.oci.document import dig, text_at

MAX_BYTES = 32 << 20
_CONTAINERS = ("initContainers", "containers", "ephemeralContainers")
_SUFFIXES = (".yaml", ".yml", ".json")
_WORKLOAD = re.compile(r"[a-z][a-z0-9.]*/[a-z0-9][a-z0-9.-]*", re.IGNORECASE | re.ASCII)
_SECONDS = 30
_READ = "name a file, a folder, - for standard input, or a workload: deployment/app"
_RENDER = "render templates first: helm template CHART | imgload load --from-manifests -"


def read_manifests(target: str, clusters: Sequence[str]) -> list[ImageEntry]:
    """Return the images that Kubernetes manifests name, which are not `required`.

    They are the images of containers in pods, in templates of pods, and in custom objects with
    lists of containers, and those of image volumes.

    UsageError is raised if a manifest cannot be read, or none names an image; ClusterError if there
    is no such cluster or object.
    """
    images: dict[ImageEntry, None] = {}
    for title, data in _read(target, clusters):
        try:
            names = [name for document in read_documents(data) for name in image_names(document)]
        except ValueError as error:
            raise UsageError(f"{title} is not valid YAML: {error}", hint=_RENDER) from error
        trace.log(f"manifests: {title} names {', '.join(names) or 'no image'}")
        for name in names:
            try:
                images[ImageEntry(name, required=False)] = None
            except UsageError as error:
                raise UsageError(f"{title}: {error.message}", hint=_RENDER) from error
    if not images:
        title = "standard input" if target == "-" else f"{target!r:.300}"
        hint = "name manifests of pods, workloads or other objects with containers"
        raise UsageError(f"no manifest in {title} names an image", hint=hint)
    return list(images)


def image_names(document: Any) -> Iterator[str]:
    """Yield the names of images in a parsed manifest or list of manifests, in order."""
    seen: set[int] = set()
    values = [document]
    while values:
        value = values.pop()
        if not isinstance(value, dict | list) or id(value) in seen:
            continue
        seen.add(id(value))  # of an alias in YAML
        if isinstance(value, list):
            values += reversed(value)
            continue
        fields = [(field, ("image",)) for field in _CONTAINERS]
        for field, keys in (*fields, ("volumes", ("image", "reference"))):
            items = dig(value, field)
            names = (text_at(item, *keys) for item in (items if isinstance(items, list) else ()))
            yield from filter(None, names)
        values += reversed(value.values())


def _read(target: str, clusters: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    """Yield the manifests of a target, each with the name of its origin."""
    if os.path.isdir(target):  # noqa: PTH112 - Path's raises for long names
        try:
            names = sorted(os.listdir(target))  # noqa: PTH208
        except OSError as error:
            raise UsageError(
                f"cannot read {target!r:.300}: {error.strerror}", hint=_READ
            ) from error
        for path in (os.path.join(target, n) for n in names if n.endswith(_SUFFIXES)):  # noqa: PTH118
            if os.path.isfile(path):  # noqa: PTH113 - not a pipe
                yield one_line(path), read_input(path, MAX_BYTES, _READ)
    elif _WORKLOAD.fullmatch(target) and not os.path.exists(target):  # noqa: PTH110
        with Session.open(has_images=False) as session:
            contexts = [chosen.context for chosen in session.select(clusters or None, ()).clusters]
        for context in contexts:
            yield f"{target} in {context}", _read_object(target, context)
    else:
        title = "standard input" if target == "-" else one_line(f"{target:.300}")
        yield title, read_input(target, MAX_BYTES, _READ)


def _read_object(target: str, context: str) -> bytes:
    query = ("get", target, "-o", "json")
    try:
        return run_kubectl(context, *query, seconds=_SECONDS).encode()
    except ClusterError as error:
        command = shlex.join(["kubectl", f"--context={context}", "-n", "NAMESPACE", *query])
        hint = f"in another namespace: {command} | imgload load --from-manifests -"
        message = f"cannot read {target} from {context}: {error.message}"
        raise ClusterError(message, hint=hint) from error
