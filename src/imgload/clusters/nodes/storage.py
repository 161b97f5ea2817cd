"""containers-storage, the store of CRI-O and Podman: where it is on a node, and its files' parsers.

CRI-O, Podman, Buildah and skopeo share one store in different versions, so its files are stable
(containers/storage images.go and layers.go). They are replaced as a whole. No command prints the
raw config of an image, or which layers are complete; the files have both.
"""

from __future__ import annotations

import base64
import re
import tomllib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

import attrs

from imgload.clusters.nodes.batch import Output
from imgload.clusters.nodes.containerd import LOADED_KEY, Command, ContentStore
from imgload.core.errors import ArchiveInvalid, NodeUnusable
from imgload.oci.digest import Digest, chain_ids
from imgload.oci.document import LAYER, Descriptor, dig, load_json
from imgload.oci.reference import pinned

LABELS = "imgload"
"""The file of imgload's labels in an image's folder; the store removes it with the image."""
_CRIO_FILES = "/etc/crio/crio.conf /etc/crio/crio.conf.d/*"
_CRIO_CONFIG = f"""
for file in {_CRIO_FILES}; do
    if [ -f "$file" ]; then head -c 65536 "$file"; printf '\\n\\0'; fi
done
"""
CRIO_CONFIG = ("sh", "-c", _CRIO_CONFIG)
"""Prints CRI-O's files of settings, the decisive one last (crio.conf.d(5))."""
FILE_SYSTEM = ("crictl", "imagefsinfo", "-o", "json")
"""The command whose answer has the folder of images that the running CRI-O uses."""
PODMAN = ("podman", "info", "--format", "json")
_IMAGES = re.compile(r'"mountpoint":\s*"((?:/(?!\.\.?/)[\w.-]+)+)/([a-z0-9]+)-images"', re.ASCII)
_MAX_DEPTH = 1000
"""Layers on each other; overlayfs allows 500, and a damaged list may have a cycle."""
_NAME = re.compile(r"[a-z0-9]+")
_PATH = re.compile(r"(?:/(?!\.\.?(?:/|$))[\w.-]+)+", re.ASCII)
_ADD_LABELS = f"""
cd "$1" && shift && for label; do
    if [ -d "${{label%%,*}}" ]; then printf '%s\\n' "${{label#*,}}" >>"${{label%%,*}}/{LABELS}"; fi
done
"""


@attrs.frozen
class Storage:
    """Where a node's images are.

    Args:
        root: the folder of the store.
        driver: the name of its storage driver.
        podman: the command line of Podman on this store.

    """

    root: str = "/var/lib/containers/storage"
    driver: str = "overlay"
    podman: Command = ("podman",)

    @property
    def images(self) -> str:
        """The folder of images."""
        return f"{self.root}/{self.driver}-images"

    @property
    def read(self) -> list[Command]:
        """The commands that print images, layers and labels; `read_store` parses them.

        An image is written after its layers, so it is read before them.
        """
        labels = f'cd "$1" && grep -s "" */{LABELS} /dev/null'
        return [
            _print(f"{self.images}/images.json"),
            _print(f"{self.root}/{self.driver}-layers/layers.json"),
            ("sh", "-c", labels, "imgload", self.images),
        ]

    @property
    def containers(self) -> list[Command]:
        """The commands that print the containers of CRI-O and Podman."""
        folder = f"{self.root}/{self.driver}-containers"
        return [_print(f"{folder}/{kind}containers.json") for kind in ("", "volatile-")]

    def config(self, image_id: Digest) -> Command:
        """Return the command that prints an image's config."""
        name = base64.b64encode(str(image_id).encode()).decode()
        return ("cat", f"{self.images}/{image_id.hex}/={name}")

    def label(self, loaded: Sequence[tuple[str, Digest]], now: float) -> Command:
        """Return the command that labels images as loaded by imgload, by name and image ID."""
        labels = [f"{config.hex},{LOADED_KEY}{name}={now:.3f}" for name, config in loaded]
        return ("sh", "-c", _ADD_LABELS, "imgload", self.images, *labels)

    @property
    def free(self) -> Command:
        return ("df", "-Pk", self.root)


def _print(file: str) -> Command:
    """Return the command that prints a file of the store; a store without items may lack it."""
    return ("sh", "-c", 'if [ -e "$1" ]; then exec cat "$1"; fi', "imgload", file)


@attrs.frozen
class StoredImage:
    """An image in the store.

    Args:
        id: the ID of CRI-O and Podman.
        config: the digest of its config: the same, unless its layers were pulled in part.
        manifests: digests of its manifest, and of the indexes that it was pulled by.
        names: in full.
        layers: IDs of its layers, bottom up.
        created: the creation time in its config; may be empty.

    """

    id: str
    config: Digest
    manifests: tuple[Digest, ...]
    names: tuple[str, ...]
    layers: tuple[str, ...]
    created: str = ""


@attrs.frozen
class StoredLayer:
    """A complete layer: its diff ID, chain ID, size as a tar, and the chain ID of the one below."""

    diff_id: Digest
    chain_id: Digest
    size: int
    parent: Digest | None = None


@attrs.frozen
class Store:
    """The images and complete layers of a store, by ID, and imgload's labels by image ID."""

    images: tuple[StoredImage, ...] = ()
    layers: Mapping[str, StoredLayer] = attrs.field(factory=dict)
    labels: Mapping[str, str] = attrs.field(factory=dict)

    @property
    def records(self) -> dict[str, Digest]:
        """The manifest to which each name leads, also the names that CRI-O and Podman derive.

        An image with a name is also found by the digests of its manifests in the same repository,
        and each image by its ID (containers/image storage/storage_reference.go).
        """
        records: dict[str, Digest] = {}
        for image in self.images:
            names = [name for name in image.names if not pinned(name)]
            records |= dict.fromkeys([f"sha256:{image.id}", *names], image.manifests[0])
            for name in image.names:
                host, _, path = name.partition("@")[0].rpartition("/")
                repository = f"{host}/{path.partition(':')[0]}"
                records |= {f"{repository}@{digest}": digest for digest in image.manifests}
        return records

    @property
    def content(self) -> ContentStore:
        """The store in terms of blobs: it recreates the tar of each layer, by its diff ID."""
        of_image = {
            image.manifests: tuple(self.layers[layer].diff_id for layer in image.layers)
            for image in self.images
            if all(layer in self.layers for layer in image.layers)
        }
        configs = {digest: image.config for image in self.images for digest in image.manifests}
        layers = {digest: ids for digests, ids in of_image.items() for digest in digests}
        diff_ids = (layer.diff_id for layer in self.layers.values())
        return ContentStore(
            blobs=frozenset((*configs, *configs.values(), *diff_ids)),
            configs=configs,
            references={m: (config, *layers.get(m, ())) for m, config in configs.items()},
            rows={image.config: self.labels.get(image.id, "") for image in self.images},
            layers=layers,
        )

    @property
    def snapshots(self) -> frozenset[Digest]:
        """The chain IDs of all layers."""
        return frozenset(layer.chain_id for layer in self.layers.values())

    def describe(self, diff_ids: Collection[Digest]) -> dict[Digest, Descriptor]:
        """Return the uncompressed tars of layers, by diff ID."""
        layers = {layer.diff_id: layer.size for layer in self.layers.values()}
        return {d: Descriptor(LAYER, d, layers[d]) for d in layers.keys() & set(diff_ids)}

    def find(self, manifest: Digest) -> StoredImage | None:
        """Return the image with a manifest."""
        return next((image for image in self.images if manifest in image.manifests), None)


_NONE = Output(0, b"")


def read_store(images: Output, layers: Output = _NONE, labels: Output = _NONE) -> Store:
    """Parse the output of `Storage.read`; NodeUnusable if a file is not as expected."""
    try:
        by_id = {x["id"]: x for x in _items(layers) if not dig(x, "flags", "incomplete")}
        parents = {layer_id: layer.get("parent") or "" for layer_id, layer in by_id.items()}
        complete = dict(_layers(by_id, parents))
        stored = tuple(_image(image, parents) for image in _items(images) if _is_image(image))
    except (ValueError, KeyError, TypeError, AttributeError, ArchiveInvalid) as error:
        raise NodeUnusable(
            f"the list of images or layers in its store cannot be read: {error}"
        ) from error
    return Store(stored, complete, _labels(labels.text))


def read_users(outputs: Iterable[Output]) -> frozenset[str]:
    """Return the IDs of images that a container of CRI-O or Podman was created from.

    `outputs` are those of `Storage.containers`; NodeUnusable if one is not as expected.
    """
    try:
        return frozenset(str(x.get("image")) for output in outputs for x in _items(output))
    except ValueError as error:
        raise NodeUnusable(f"the list of containers in its store is unreadable: {error}") from error


def _items(output: Output) -> list[Any]:
    if output.exit_status:
        raise ValueError(output.text.strip() or f"exit status {output.exit_status}")
    document = load_json(output.stdout, most=None) if output.stdout.strip() else []
    return [item for item in document if isinstance(item, dict)]


def _is_image(image: Mapping[str, Any]) -> bool:
    """Whether it has a config: a manifest list has none."""
    return Digest.try_parse(image.get("digest")) is not None and any(_configs(image))


def _configs(image: Mapping[str, Any]) -> Iterator[Digest]:
    for name in image.get("big-data-names") or ():
        if digest := Digest.try_parse(name):
            yield digest


def _image(image: Mapping[str, Any], parents: Mapping[str, str]) -> StoredImage:
    configs, own_id = list(_configs(image)), str(Digest("sha256", image["id"]).hex)
    config = next((config for config in configs if config.hex == own_id), configs[0])
    keys = (name.removeprefix("manifest-") for name in image["big-data-names"])
    digests = filter(None, map(Digest.try_parse, keys))
    manifests = [Digest.parse(image["digest"]), *(d for d in digests if d not in configs)]
    names = tuple(name for name in image.get("names") or () if isinstance(name, str))
    names = tuple(name for name in names if "@" not in name or _is_pinned(name))
    layers = tuple(_chain(image.get("layer") or "", parents))
    manifests = list(dict.fromkeys(manifests))
    created = str(image.get("created") or "")
    return StoredImage(own_id, config, tuple(manifests), names, layers, created)


def _is_pinned(name: str) -> bool:
    return Digest.try_parse(name.partition("@")[2]) is not None


def _chain(layer: str, parents: Mapping[str, str]) -> list[str]:
    """Return a layer and those below it, bottom up."""
    chain: list[str] = []
    while layer and len(chain) < _MAX_DEPTH:
        chain.append(layer)
        layer = parents.get(layer, "")
    return chain[::-1]


def _layers(
    by_id: Mapping[str, Any], parents: Mapping[str, str]
) -> Iterator[tuple[str, StoredLayer]]:
    for layer_id in by_id:
        described = [by_id.get(below, {}) for below in _chain(layer_id, parents)]
        diff_ids = [Digest.try_parse(layer.get("diff-digest")) for layer in described]
        known = tuple(filter(None, diff_ids))
        if len(known) == len(diff_ids):
            size = described[-1].get("diff-size") or 0
            *below, chain_id = chain_ids(known)
            yield (
                layer_id,
                StoredLayer(known[-1], chain_id, int(size), below[-1] if below else None),
            )


def _labels(text: str) -> dict[str, str]:
    """Return the labels of each image; grep prints ``ID/FILE:LINE``."""
    labels: dict[str, list[str]] = {}
    for line in text.splitlines():
        image_id, _, label = line.partition(f"/{LABELS}:")
        labels.setdefault(image_id, []).append(label)
    return {image_id: ",".join(lines) for image_id, lines in labels.items()}


def read_search(info: Any) -> tuple[str, ...]:
    """Return the registries for names without one, from the document of ``podman info``."""
    search = dig(info, "registries", "search")
    return tuple(x for x in search if isinstance(x, str)) if isinstance(search, list) else ()


def read_info(output: Output) -> Any:
    """Parse the output of `PODMAN`; NodeUnusable if it is no document."""
    try:
        return load_json(output.stdout)
    except ValueError as error:
        raise NodeUnusable(f"the output of podman info cannot be read: {error}") from error


def find_storage(info: Any, crio: Output, file_system: Output) -> Storage:
    """Return the store of CRI-O, from ``podman info``, CRI-O's files and its CRI.

    The running CRI-O knows best; else, its files of settings override those of the store, which
    Podman reads as well (containers-storage.conf(5)).
    """
    store = dig(info, "store")
    root, driver = str(dig(store, "graphRoot")), str(dig(store, "graphDriverName"))
    if not (_PATH.fullmatch(root) and _NAME.fullmatch(driver)):
        raise NodeUnusable("podman info does not name the folder of the store and its driver")
    own, settings = Storage(root, driver), _crio_settings(crio.stdout)
    if match := _IMAGES.search(file_system.text):
        root, driver = match[1], match[2]
    else:
        root = settings.get("root", root)
        driver = settings.get("storage_driver", driver)
    if (root, driver) == (own.root, own.driver):
        return own
    options = {"root": root, "storage-driver": driver}
    if "runroot" in settings:
        options["runroot"] = settings["runroot"]
    return Storage(root, driver, ("podman", *(f"--{n}={value}" for n, value in options.items())))


def _crio_settings(files: bytes) -> dict[str, str]:
    """Return the settings of the store in CRI-O's files; NodeUnusable if one is not a path."""
    settings: dict[str, str] = {}
    patterns = {"root": _PATH, "runroot": _PATH, "storage_driver": _NAME}
    for text in files.decode(errors="replace").split("\0"):
        with suppress(ValueError, RecursionError):
            table = tomllib.loads(text).get("crio")
            for name, pattern in patterns.items():
                value = dig(table, name)
                if value and not pattern.fullmatch(str(value)):
                    raise NodeUnusable(f"CRI-O's setting {name} is not usable: {value!r:.100}")
                settings |= {name: value} if value else {}
    return settings
