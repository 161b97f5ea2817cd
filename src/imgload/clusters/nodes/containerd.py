"""Commands of ``ctr`` and ``containerd``, and parsers of their output (containerd 1.6 to 2.x)."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Sequence
from typing import Any

import attrs

from imgload.oci.digest import Digest
from imgload.oci.document import dig

CTR = ("ctr", "-n", "k8s.io")
VERSION = ("ctr", "version")
CONTENT = (*CTR, "content", "ls")
CONTAINERS = (*CTR, "containers", "ls")
DEFAULT_SNAPSHOTTER = "overlayfs"
DEFAULT_REGISTRY_FOLDER = "/etc/containerd/certs.d"
CRI_RECORD = "sha256:"
"""Prefix of CRI's own records: one for each image, named after its ID."""
CRI_LABEL = "io.cri-containerd.image"
"""``managed`` on each record that CRI has registered (containerd ``internal/cri/labels``)."""
CRI_PLUGINS = {
    4: "io.containerd.cri.v1.images",
    3: "io.containerd.cri.v1.images",
    2: "io.containerd.grpc.v1.cri",
    1: "cri",
}
"""The plugin that configures CRI's registries, by the version of the configuration."""

_RUNTIME_PLUGINS = ("io.containerd.cri.v1.runtime", "io.containerd.grpc.v1.cri", "cri")
"""The plugins that configure the runtimes of pods, in versions 3 and 4, 2, and 1."""
_IDENTIFIER = re.compile(r"[A-Za-z0-9]+(?:[._-][A-Za-z0-9]+)*", re.ASCII)
"""containerd ``pkg/identifiers``."""
_FOLDER = re.compile(r"(?:/(?!\.\.?(?:/|$))[\w.-]+)+", re.ASCII)
_VERSION = re.compile(r"Server:\s+Version:\s+v?(\d{1,9})\.(\d{1,9})")
_REFERENCES = tuple(
    re.compile(rf"containerd\.io/gc\.ref\.content\.{key}=(sha256:[0-9a-f]{{64}})")
    for key in ("config", r"m\.\d+", r"l\.\d+")
)
"""A manifest's config, an index's manifests, and a manifest's layers."""
_LOADED_KEY = "imgload.loaded/"
"""Prefix of the label that imgload puts on an image's config in the content store.

A label on the record would be lost as soon as its name moves to the next build, which is when it
is needed. The config exists as long as the image does, and ``ctr content ls`` lists its labels.
"""
_LOADED_LABEL = re.compile(
    rf"{re.escape(_LOADED_KEY)}([^=,\s]{{1,1000}})=(\d{{1,11}}(?:\.\d{{1,3}})?)(?=,|\s|$)"
)
_PINNED = "io.cri-containerd.pinned"
_RETAG = """
existing=$1 is=$2 name=$3 pinned=$4 label=$5
shift 5
[ -n "$("$@" images ls -q "$is")" ] || exit 0
was=$("$@" images ls -q "$pinned")
"$@" images tag --force -- "$existing" "$name" >/dev/null || exit
exec "$@" images label "$name" "$label=${was:+pinned}" >/dev/null
"""


def images_command(names: Sequence[str], targets: Sequence[Digest]) -> tuple[str, ...]:
    """Return the command that lists the image records with some names or target digests.

    Without a filter ctr computes the size of every image: 2 ms each.
    """
    by_name = (f'name=="{name}"' for name in names)
    by_target = (f'target.digest=="{target}"' for target in targets)
    return (*CTR, "images", "ls", *by_name, *by_target)


def all_images() -> list[tuple[str, ...]]:
    """Return the commands that list all records: first those with names, then CRI's by image ID.

    CRI has one for each image; listing only its name avoids computing the size again.
    """
    others = ""  # all names that do not start with CRI_RECORD: Go's expressions have no lookahead
    for character in reversed(CRI_RECORD):
        others = f"(?:$|[^{character}]{f'|{character}{others}' if others else ''})"
    return [
        (*CTR, "images", "ls", f"name~=/^{others}/"),
        (*CTR, "images", "ls", "-q", f"name~=/^{CRI_RECORD}/"),
    ]


def points_to(name: str, *targets: Digest) -> str:
    """Return ctr's filter for the record of a name (any string) if it has one of some targets."""
    return f"name=={quoted(name)},{any_target(targets)}"


def any_target(targets: Sequence[Digest]) -> str:
    """Return ctr's filter for records with one of some targets."""
    return f"target.digest~=/^({'|'.join(map(str, targets))})$/"


def quoted(name: str) -> str:
    """Return a name as a Go string literal, for a filter of ctr."""
    return json.dumps(name, ensure_ascii=False)


def content_command(digest: Digest) -> tuple[str, ...]:
    """Return the command that prints a blob."""
    return (*CTR, "content", "get", str(digest))


def snapshots_command(snapshotter: str) -> tuple[str, ...]:
    """Return the command that lists a snapshotter's snapshots."""
    return (*CTR, "snapshots", "--snapshotter", snapshotter, "ls")


def usage_command(snapshotter: str) -> tuple[str, ...]:
    """Return the command that lists the bytes that each snapshot of a snapshotter takes."""
    return (*CTR, "snapshots", "--snapshotter", snapshotter, "usage", "-b")


def import_command(snapshotter: str, platform: str, *, local: bool) -> tuple[str, ...]:
    """Return the command that imports an OCI layout tar from its standard input.

    Args:
        snapshotter: CRI's; ctr's own default may be another (kind #2543).
        platform: the platform of the images in the tar.
        local: whether to bypass the transfer service, which is slower, and on 1.7 leaves images
            that CRI does not see (containerd #9039). containerd 1.6 has no such option, and 1.7
            bypasses it by default.

    """
    options = (f"--snapshotter={snapshotter}", f"--platform={platform}")
    return (*CTR, "images", "import", *(["--local"] if local else []), *options, "-")


def retag_command(ctr: Sequence[str], existing: str, target: Digest, name: str) -> tuple[str, ...]:
    """Return the command that tags the image of an existing name, if its target is `target`.

    ctr copies the labels. The label that keeps CRI from removing an image belongs to each name.

    Args:
        ctr: the command line of ``ctr`` in the namespace of Kubernetes.
        existing: a name of the image; it may be any string.
        target: the digest that it must point to.
        name: the tag to add.

    """
    pinned = f'name=={quoted(name)},labels."{_PINNED}"==pinned'
    words = (existing, points_to(existing, target), name, pinned, _PINNED)
    return ("sh", "-c", _RETAG, "imgload", *words, *ctr)


def probe_command(folder: str, name: str) -> tuple[str, ...]:
    """Return the command that pulls an image, configured by a folder's file for its registry."""
    options = ("images", "pull", "--hosts-dir", folder)
    return ("ctr", "--timeout", "5s", *CTR[1:], *options, name)


def notice_command(name: str) -> tuple[str, ...]:
    """Return the command that makes CRI read a record again.

    CRI registers a record when an event reports a change, and labels it; containerd 1.7's transfer
    service sends no event (containerd #9039). Removing the label is such a change.
    """
    return (*CTR, "images", "label", name, f"{CRI_LABEL}=")


def remove_command(names: Sequence[str], *, wait: bool = False) -> tuple[str, ...]:
    """Return the command that removes names; `wait` until unused content is deleted as well."""
    return (*CTR, "images", "rm", *(["--sync"] if wait else []), "--", *names)


def label_commands(loaded: Sequence[tuple[str, Digest]], now: float) -> list[Sequence[str]]:
    """Return the commands that label images as loaded by imgload.

    If one fails, the only effect is that `imgload.prune` leaves the image alone.

    Args:
        loaded: names, each with the image ID it was loaded with.
        now: the time, in seconds since 1970.

    """
    return [
        (*CTR, "content", "label", str(config), f"{_LOADED_KEY}{name}={now:.3f}")
        for name, config in loaded
    ]


def parse_labels(labels: str) -> dict[str, float]:
    """Return the names that an image was loaded under, with the times, from its config's labels."""
    return {name: float(seconds) for name, seconds in _LOADED_LABEL.findall(labels)}


def parse_version(text: str) -> tuple[int, int]:
    """Return major and minor of the server from ``ctr version``, or (0, 0)."""
    match = _VERSION.search(text)
    return (int(match.group(1)), int(match.group(2))) if match else (0, 0)


def parse_snapshotter(config: str) -> str | None:
    """Return CRI's snapshotter from ``containerd config dump`` (kind #3871).

    The default runtime's snapshotter takes precedence. A configuration without the setting means
    containerd's documented default. None when the text is no configuration, or the name is invalid.
    """
    plugins = _plugins(config)
    if plugins is None or not config.strip():
        return None
    current, *older = (dig(plugins, plugin, "containerd") for plugin in _RUNTIME_PLUGINS)
    settings = []
    for section in (current, *older):
        default = dig(section, "default_runtime_name")
        runtime = default if isinstance(default, str) and default else "runc"
        settings.append(dig(section, "runtimes", runtime, "snapshotter"))
    settings.append(dig(plugins, CRI_PLUGINS[3], "snapshotter"))
    settings += [dig(section, "snapshotter") for section in older]
    name = next(filter(None, settings), DEFAULT_SNAPSHOTTER)
    return name if isinstance(name, str) and _IDENTIFIER.fullmatch(name) else None


def parse_registry_folders(config: str) -> tuple[str, ...] | None:
    """Return the folders of CRI's registries from ``containerd config dump``; () if none is set.

    None when ``config_path`` has anything but absolute paths of plain characters.
    """
    plugins = _plugins(config)
    paths = (dig(plugins, plugin, "registry", "config_path") for plugin in CRI_PLUGINS.values())
    setting = next((path for path in paths if isinstance(path, str) and path), "")
    folders = tuple(setting.split(":")) if setting else ()
    return folders if all(map(_FOLDER.fullmatch, folders)) else None


def _plugins(config: str) -> Any:
    """Return the plugins' settings, None where the text is not TOML."""
    try:
        return tomllib.loads(config).get("plugins", {})
    except (ValueError, RecursionError):
        return None


def _rows(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()[1:]]


def parse_containers(text: str) -> frozenset[str]:
    """Return the images of ``ctr containers ls``, by the names that the containers began with."""
    return frozenset(row[1] for row in _rows(text) if len(row) > 2)  # noqa: PLR2004 - ID IMAGE RUNTIME


def parse_images(text: str) -> dict[str, Digest]:
    """Return the image records of ``ctr images ls``: names with their target digests."""
    rows = (row for row in _rows(text) if len(row) > 2)  # noqa: PLR2004 - REF TYPE DIGEST
    return {row[0]: digest for row in rows if (digest := Digest.try_parse(row[2]))}


def parse_not_in_cri(text: str) -> frozenset[str]:
    """Return the names in ``ctr images ls`` that CRI has not registered."""
    lines = (line for line in text.splitlines()[1:] if f"{CRI_LABEL}=managed" not in line)
    return frozenset(line.split()[0] for line in lines if line.strip())


def parse_snapshots(text: str) -> frozenset[Digest]:
    """Return the unpacked chain IDs from ``ctr snapshots ls``."""
    keys = (row[0] for row in _rows(text) if row and row[-1] == "Committed")
    return frozenset(digest for key in keys if (digest := Digest.try_parse(key)))


@attrs.frozen
class ContentStore:
    """The content store: its blobs, and the references between them, from containerd's labels.

    Args:
        blobs: the blobs on the node.
        configs: the config of each manifest.
        children: the manifests of each index.
        layers: the layers of each manifest.

    """

    blobs: frozenset[Digest] = frozenset()
    configs: dict[Digest, Digest] = attrs.field(factory=dict)
    children: dict[Digest, tuple[Digest, ...]] = attrs.field(factory=dict)
    layers: dict[Digest, tuple[Digest, ...]] = attrs.field(factory=dict)

    def blobs_under(self, target: Digest, depth: int = 4) -> frozenset[Digest]:
        """Return the blobs on the node that a manifest or an index refers to, itself included."""
        config = [self.configs[target]] if target in self.configs else []
        own = self.blobs & {target, *config, *self.layers.get(target, ())}
        children = self.children.get(target, ()) if depth else ()
        return own.union(*(self.blobs_under(child, depth - 1) for child in children))

    def configs_under(self, target: Digest, depth: int = 4) -> frozenset[Digest]:
        """Return the config of a manifest, or the configs of all manifests below an index."""
        if target in self.configs:
            return frozenset([self.configs[target]])
        children = self.children.get(target, ()) if depth else ()
        return frozenset().union(*(self.configs_under(child, depth - 1) for child in children))


def parse_content(text: str) -> ContentStore:
    """Return the content store from ``ctr content ls``."""
    content = ContentStore()
    blobs: set[Digest] = set()
    for line in text.splitlines()[1:]:
        digest = Digest.try_parse(line.partition("\t")[0])
        if digest is None:
            continue
        blobs.add(digest)
        config, children, layers = (tuple(map(Digest.parse, r.findall(line))) for r in _REFERENCES)
        if config:
            content.configs[digest] = config[0]
        if children:
            content.children[digest] = children
        if layers:
            content.layers[digest] = layers
    return attrs.evolve(content, blobs=frozenset(blobs))
