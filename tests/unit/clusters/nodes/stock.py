"""Made-up output of ctr about a node's images."""

import json
from collections.abc import Iterable, Mapping, Sequence

import attrs

from imgload.clusters.nodes.batch import Output
from imgload.oci.digest import Digest
from imgload.tools.inventory.base import Inventory
from imgload.tools.inventory.containerd import read_inventory

NO_CRICTL = Output(127, b"")
KIB = 1024


@attrs.frozen
class Stored:
    """An image with its layers, each of which is one blob and one snapshot.

    Args:
        name: all its digests are made from it.
        names: of its records.
        layers: its layers' names, bottom up; those of the same name are shared.
        labels: further labels of its config.
        by_id: whether CRI has a record by its ID.

    """

    name: str
    names: Sequence[str] = ()
    layers: Sequence[str] = ("base",)
    labels: Mapping[str, str] = attrs.field(factory=dict)
    by_id: bool = True
    record_labels: str = "io.cri-containerd.image=managed"

    @property
    def image_id(self) -> Digest:
        return Digest.of(f"{self.name} config".encode())

    @property
    def manifest(self) -> Digest:
        return Digest.of(f"{self.name} manifest".encode())

    @property
    def chain(self) -> list[Digest]:
        return [Digest.of("/".join(self.layers[: i + 1]).encode()) for i in range(len(self.layers))]

    @property
    def blobs(self) -> dict[Digest, str]:
        """Its blobs and their labels."""
        held = {f"l.{i}": Digest.of(layer.encode()) for i, layer in enumerate(self.layers)}
        held["config"] = self.image_id
        gc = {f"containerd.io/gc.ref.content.{key}": str(d) for key, d in held.items()}
        snapshot = {"containerd.io/gc.ref.snapshot.overlayfs": str(self.chain[-1])}
        return {
            self.manifest: _labels(gc),
            self.image_id: _labels({**snapshot, **self.labels}),
            **{Digest.of(layer.encode()): _labels({}) for layer in self.layers},
        }


def _labels(labels: Mapping[str, str]) -> str:
    return ",".join(f"{key}={value}" for key, value in labels.items()) or "-"


def printed(
    images: Sequence[Stored],
    *,
    containers: Iterable[tuple[str, Digest | None]] = (),
    in_cri: Iterable[Mapping[str, object]] | None = None,
    on_disk: bool = True,
) -> list[Output]:
    """Return the answers to `inventory_commands`.

    Args:
        images: the node's images.
        containers: the image of each container, and the parent of its snapshot.
        in_cri: crictl's output about containers; None where there is no crictl.
        on_disk: whether the content store's files can be listed.

    """
    blobs = {d: labels for image in images for d, labels in image.blobs.items()}
    parents = {c: p for i in images for p, c in zip([None, *i.chain], i.chain, strict=False)}
    there = list(enumerate(containers))
    tables = [
        ["REF TYPE DIGEST SIZE PLATFORMS LABELS", *_records(images)],
        [str(image.image_id) for image in images if image.by_id],
        ["CONTAINER IMAGE RUNTIME", *(f"c{n}    {image}    runc" for n, (image, _) in there)],
    ]
    rest = [
        ["DIGEST\tSIZE\tAGE\tLABELS", *(f"{d}\t4.5kB\t2 hours\t{x}" for d, x in blobs.items())],
        [f"/c/blobs/sha256/{d.hex} 16 1700000000" for d in blobs] if on_disk else [],
        [
            "KEY PARENT KIND",
            *(f"{c} {p or ''} Committed" for c, p in parents.items()),
            *(f"c{n} {parent or ''} Active" for n, (_, parent) in there),
        ],
        ["KEY SIZE INODES", *(f"{c} 8192 2" for c in parents)],
    ]
    cri = NO_CRICTL if in_cri is None else Output(0, json.dumps({"containers": in_cri}).encode())
    return [*map(_output, tables), cri, *map(_output, rest)]


def _records(images: Sequence[Stored]) -> Iterable[str]:
    for image in images:
        for name in image.names:
            kind = "application/vnd.oci.image.manifest.v1+json"
            yield f"{name}   {kind} {image.manifest} 9.0 KiB linux/amd64 {image.record_labels} "


def _output(lines: Iterable[str]) -> Output:
    return Output(0, "".join(f"{line}\n" for line in lines).encode())


def inventory(*images: Stored, **options: object) -> Inventory:
    """Return the parsed inventory of such a node."""
    return read_inventory("overlayfs", printed(images, **options))  # type: ignore[arg-type]
