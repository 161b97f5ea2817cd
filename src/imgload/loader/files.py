"""Verification of files: those that containers get on a node, against the layers of the source.

containerd identifies a snapshot by its chain ID, and does not check its files: 2.2.0 to 2.2.2 lose
whiteouts when they unpack layers in parallel (containerd #13030), and files may change later.
"""

from __future__ import annotations

import hashlib
import queue
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from itertools import islice

import attrs

from imgload.clusters.nodes.base import NodeRuntime
from imgload.clusters.nodes.containerd import CTR
from imgload.clusters.nodes.survey import Survey
from imgload.core.compression import compression_of, decompressed
from imgload.core.errors import ArchiveInvalid, DigestMismatch, ImgloadError, NotVerified
from imgload.core.parallel import Task, in_parallel, result_or_error
from imgload.loader.report import NodeResult
from imgload.loader.send import Sending
from imgload.oci.content import BlobWriter, Chunk, ImageContent
from imgload.oci.digest import Digest
from imgload.oci.members import hashed, peek
from imgload.oci.tree import MAX_FILES, Entry, Tree, differences, read_layer
from imgload.sources.base import Image
from imgload.sources.push import PushIncomplete
from imgload.transports.base import Delivery, Order, Shipment, Transport

_LISTED = 5
"""Files in an error."""
Checked = tuple[Image, NodeResult]


@attrs.frozen
class FileCheck:
    """Compares the files of verified images; nodes and surveys are by name.

    With `contents`, the content of files is hashed, too.
    """

    nodes: Mapping[str, NodeRuntime]
    surveys: Mapping[str, Survey]
    contents: bool = False

    def run(self, checked: Sequence[Checked]) -> Iterator[Checked]:
        """Yield the results of the images that were verified so far, with that of their files."""
        groups: dict[tuple[int, str], list[Checked]] = {}
        for image, result in checked:
            if result.ok:
                key = id(image.origin), str(image.platform)
                groups.setdefault(key, []).append((image, result))
        for group in groups.values():
            yield from self._run(group)

    def _run(self, group: Sequence[Checked]) -> Iterator[Checked]:
        by_image: dict[Image, list[NodeResult]] = {}
        for image, result in group:
            by_image.setdefault(image, []).append(result)
        layers = result_or_error(partial(self._read_layers, group))
        if isinstance(layers, ImgloadError) and len(by_image) > 1:
            for image, results in by_image.items():
                yield from self._run([(image, result) for result in results])
            return
        for image, results in by_image.items():
            tree = (
                layers
                if isinstance(layers, ImgloadError)
                else result_or_error(partial(_tree, image, layers))
            )
            compared = in_parallel([partial(self._compare, image, r, tree) for r in results])
            yield from ((image, result) for result in compared)

    def _read_layers(self, group: Sequence[Checked]) -> Mapping[Digest, Sequence[Entry]]:
        """Return the entries of all layers of the images, by diff ID, from their source."""
        images = [image.origin.identify(image) for image in dict.fromkeys(i for i, _ in group)]
        nodes = [self.nodes[name] for name in dict.fromkeys(r.node for _, r in group)]
        everything = frozenset(layer for image in images for layer in image.diff_ids)
        transport = _Reading(self.contents)
        missing = {node.name: everything for node in nodes}
        sending = Sending(images, self.surveys, missing, "auto", lambda _: None, transport)
        save = partial(sending.by_save, nodes)
        try:
            (sending.delta_or_none(nodes) or save)()
        except PushIncomplete:
            save()
        return transport.layers

    def _compare(self, image: Image, result: NodeResult, tree: Tree | ImgloadError) -> NodeResult:
        if isinstance(tree, ImgloadError):
            return attrs.evolve(result, error=tree)
        assert result.proof  # noqa: S101 - it is verified
        node = self.nodes[result.node]
        try:
            listed = node.list_files(image.name, image.platform, hashes=self.contents)
        except ImgloadError as error:
            return attrs.evolve(result, error=error)
        differing = differences(tree, listed.files, devices=listed.has_devices)
        first = list(islice(differing, _LISTED))
        refusal = _refusal(image, node, first, sum(1 for _ in differing)) if first else None
        proof = attrs.evolve(result.proof, files=not first)
        return attrs.evolve(result, proof=proof, error=refusal)


def _refusal(image: Image, node: NodeRuntime, first: Sequence[str], more: int) -> NotVerified:
    rest = f"; and {more} more" if more else ""
    names = (image.name, str(image.image_id))
    remove = node.exec_command(*node.resolve_command((*CTR, "images", "rm", "--sync", *names)))
    return NotVerified(
        f"{node.name} has {image.name} with other files than its layers: {'; '.join(first)}{rest}",
        hint=f"{remove}, and load it again; images and pods that use the same layers keep these, so"
        " remove them first",
        node=node.name,
        image=image.name,
    )


def _tree(image: Image, layers: Mapping[Digest, Sequence[Entry]]) -> Tree:
    tree = Tree()
    for diff_id in image.diff_ids:
        if diff_id not in layers:
            raise ArchiveInvalid(
                f"{image.origin.describe} does not have the layer {diff_id} of {image.name}, so"
                " that its files are not known",
                image=image.name,
            )
        tree.apply(layers[diff_id])
    return tree


class _Reading(Transport):
    """Delivers nothing: the layers are only read."""

    name = "none"

    def __init__(self, hashes: bool) -> None:  # noqa: FBT001
        self._hashes = hashes
        self.layers: dict[Digest, Sequence[Entry]] = {}

    def start(self, order: Order) -> Shipment:
        del order
        self.layers.clear()
        return _Layers(self._hashes, self.layers)


@attrs.define(eq=False, repr=False)
class _Layers(Shipment):
    """Reads the entries of layers while they are received."""

    hashes: bool
    layers: dict[Digest, Sequence[Entry]]
    sent: dict[str, dict[Digest, int]] = attrs.field(factory=dict)
    blobs: dict[Digest, _Read] = attrs.field(factory=dict)

    def lacks(self, digest: Digest, diff_id: Digest | None) -> bool:
        del diff_id
        return digest not in self.blobs

    def blob(
        self, size: int, digest: Digest | None = None, diff_id: Digest | None = None
    ) -> BlobWriter:
        del size, diff_id
        return _LayerWriter(self, digest)

    def image(self, content: ImageContent) -> None:
        for layer in content.layers:
            if read := self.blobs.get(layer.descriptor.digest):
                if isinstance(read.entries, ImgloadError):
                    raise read.entries
                if read.diff_id != layer.diff_id:
                    raise DigestMismatch(f"the layer {layer.diff_id} has the files of another")
                self.layers[layer.diff_id] = read.entries
        if sum(map(len, self.layers.values())) > MAX_FILES:
            raise ArchiveInvalid(f"the layers have more than {MAX_FILES} files")

    def exclusive(self) -> AbstractContextManager[None]:
        return nullcontext()

    is_open = True

    def complete(self) -> None:
        pass

    def finish(self) -> Mapping[str, Delivery]:
        return {}

    def abort(self) -> None:
        pass


@attrs.frozen
class _Read:
    """The digests of a blob, and the entries of the layer in it, or why it has none."""

    digest: Digest
    diff_id: Digest
    entries: Sequence[Entry] | ArchiveInvalid


class _LayerWriter:
    """Passes a blob on to the thread that reads it."""

    def __init__(self, layers: _Layers, digest: Digest | None) -> None:
        self._layers, self._digest = layers, digest
        self._chunks: queue.Queue[bytes | None] = queue.Queue(4)
        self._task = Task(partial(_read, iter(self._chunks.get, None), hashes=layers.hashes))
        self._open = True

    def write(self, chunk: Chunk) -> None:
        self._chunks.put(bytes(chunk))

    def finish(self, digest: Digest | None = None) -> Digest:
        self.abandon()
        read, expected = self._task.result(), digest or self._digest
        if expected not in {None, read.digest}:
            raise DigestMismatch(f"the content of {expected} has the digest {read.digest}")
        self._layers.blobs[read.digest] = read
        return read.digest

    def abandon(self) -> None:
        if self._open:
            self._open = False
            self._chunks.put(None)


def _read(chunks: Iterator[bytes], *, hashes: bool) -> _Read:
    blob, plain = hashlib.sha256(), hashlib.sha256()
    start, pieces = peek(hashed(map(memoryview, chunks), blob))
    form = compression_of(start)
    tar = decompressed(pieces, form, "a layer's") if form else map(bytes, pieces)
    content = hashed(tar, plain)
    entries: Sequence[Entry] | ArchiveInvalid
    try:
        entries = read_layer(content, hashes=hashes)
        for _ in content:
            pass
    except ArchiveInvalid as error:
        entries = error
    for _ in pieces:
        pass
    digest, diff_id = (Digest("sha256", hasher.hexdigest()) for hasher in (blob, plain))
    return _Read(digest, diff_id, entries)
