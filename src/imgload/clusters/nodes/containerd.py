"""What ``ctr`` and ``containerd`` print, understood (containerd 1.6 to 2.x)."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Sequence
from typing import Any

import attrs

from imgload.engines.discovery.config_files import dig
from imgload.oci.digest import Digest

CTR = ("ctr", "-n", "k8s.io")
CONFIG_DUMP = ("containerd", "config", "dump")
VERSION = ("ctr", "version")
CONTENT = (*CTR, "content", "ls")
CONTAINERS = (*CTR, "containers", "ls")
DEFAULT_SNAPSHOTTER = "overlayfs"
CRI_RECORD = "sha256:"
"""How the names of CRI's own records start: one for each image, by its ID."""
DEFAULT_REGISTRY_FOLDER = "/etc/containerd/certs.d"
CRI_LABEL = "io.cri-containerd.image"
"""``managed`` on each record that CRI has taken over (containerd ``internal/cri/labels``)."""

_PINNED = "io.cri-containerd.pinned"
_RETAG = """
existing=$1 is=$2 name=$3 pinned=$4 label=$5
shift 5
[ -n "$("$@" images ls -q "$is")" ] || exit 0
was=$("$@" images ls -q "$pinned")
"$@" images tag --force -- "$existing" "$name" >/dev/null || exit
exec "$@" images label "$name" "$label=${was:+pinned}" >/dev/null
"""

_CONFIG_LABEL = re.compile(r"containerd\.io/gc\.ref\.content\.config=(sha256:[0-9a-f]{64})")
_CHILD_LABEL = re.compile(r"containerd\.io/gc\.ref\.content\.m\.\d+=(sha256:[0-9a-f]{64})")
_LAYER_LABEL = re.compile(r"containerd\.io/gc\.ref\.content\.l\.\d+=(sha256:[0-9a-f]{64})")
_VERSION = re.compile(r"Server:\s+Version:\s+v?(\d{1,9})\.(\d{1,9})")
_SNAPSHOTTER_PATHS = (
    ("io.containerd.cri.v1.images", "snapshotter"),
    ("io.containerd.grpc.v1.cri", "containerd", "snapshotter"),
    ("cri", "containerd", "snapshotter"),
)
"""Where config versions 3 and 4, 2, and 1 keep CRI's snapshotter."""
CRI_PLUGINS = {
    4: "io.containerd.cri.v1.images",
    3: "io.containerd.cri.v1.images",
    2: "io.containerd.grpc.v1.cri",
    1: "cri",
}
"""The plugin that has CRI's registries, by the version of the configuration."""
_RUNTIME_PATHS = (
    ("io.containerd.cri.v1.runtime", "containerd"),
    ("io.containerd.grpc.v1.cri", "containerd"),
    ("cri", "containerd"),
)
"""Where they keep the runtimes of pods, each of which may have a snapshotter of its own."""
_IDENTIFIER = re.compile(r"[A-Za-z0-9]+(?:[._-][A-Za-z0-9]+)*", re.ASCII)
"""What containerd calls its own things (containerd ``pkg/identifiers``)."""
_FOLDER = re.compile(r"(?:/(?!\.\.?(?:/|$))[\w.-]+)+", re.ASCII)


def images_of(names: Sequence[str], targets: Sequence[Digest]) -> tuple[str, ...]:
    """Return the command that lists the image records of some names or target digests.

    Without a filter ctr sizes up every image that there is: 2 ms each.
    """
    by_name = (f'name=="{name}"' for name in names)
    by_target = (f'target.digest=="{target}"' for target in targets)
    return (*CTR, "images", "ls", *by_name, *by_target)


def leads_to(name: str, *targets: Digest) -> str:
    """Return ctr's filter for a record, of any name, that leads to one of some targets."""
    return f"name=={quoted(name)},{any_target(targets)}"


def any_target(targets: Sequence[Digest]) -> str:
    """Return ctr's filter for records that lead to one of some targets."""
    return f"target.digest~=/^({'|'.join(map(str, targets))})$/"


def quoted(name: str) -> str:
    """Return a name as a Go string, which a filter of ctr's may have in it."""
    return json.dumps(name, ensure_ascii=False)


def snapshots_of(snapshotter: str) -> tuple[str, ...]:
    """Return the command that lists a snapshotter's snapshots."""
    return (*CTR, "snapshots", "--snapshotter", snapshotter, "ls")


def all_images() -> list[tuple[str, ...]]:
    """Return the commands that list all records: those that have names, and CRI's by image ID.

    CRI has one for each image, and sizing it up is to no purpose: only its name is listed.
    """
    others = f"name~=/^{_not_starting(CRI_RECORD)}/"
    return [(*CTR, "images", "ls", others), (*CTR, "images", "ls", "-q", f"name~=/^{CRI_RECORD}/")]


def _not_starting(prefix: str) -> str:
    """Return a regular expression for all that starts otherwise; Go's know no lookahead."""
    pattern = ""
    for character in reversed(prefix):
        longer = f"|{character}{pattern}" if pattern else ""
        pattern = f"(?:$|[^{character}]{longer})"
    return pattern


def usage_of(snapshotter: str) -> tuple[str, ...]:
    """Return the command that tells the bytes that each of a snapshotter's snapshots takes."""
    return (*CTR, "snapshots", "--snapshotter", snapshotter, "usage", "-b")


def content_of(digest: Digest) -> tuple[str, ...]:
    """Return the command that prints a blob."""
    return (*CTR, "content", "get", str(digest))


def import_command(snapshotter: str, platform: str, *, local: bool) -> tuple[str, ...]:
    """Return the command that imports an OCI layout tar from its standard input.

    Args:
        snapshotter: CRI's; ctr's own default may be another (kind #2543).
        platform: of the images in the tar.
        local: not through the transfer service, which is slower, and on 1.7 leaves images that
            CRI does not see (containerd #9039). containerd 1.6 has no such option and 1.7 does
            it by default.

    """
    way = ("--local",) if local else ()
    options = (f"--snapshotter={snapshotter}", f"--platform={platform}")
    return (*CTR, "images", "import", *way, *options, "-")


def tag_command(existing: str, name: str) -> tuple[str, ...]:
    """Return the command that gives an image one more name; what exists may be called anything."""
    return (*CTR, "images", "tag", "--force", "--", existing, name)


def retag_command(ctr: Sequence[str], existing: str, target: Digest, name: str) -> tuple[str, ...]:
    """Return the command that has a name lead where an existing one leads, if that is `target`.

    Otherwise it changes nothing.

    ctr copies the labels along. Whether CRI may remove an image is a label of each name's own.

    Args:
        ctr: how ``ctr`` in the namespace of Kubernetes is called.
        existing: a name of the image; it may be called anything.
        target: what it must lead to.
        name: the name to give.

    """
    pinned = f'name=={quoted(name)},labels."{_PINNED}"==pinned'
    words = (existing, leads_to(existing, target), name, pinned, _PINNED)
    return ("sh", "-c", _RETAG, "imgload", *words, *ctr)


def probe_command(folder: str, name: str) -> tuple[str, ...]:
    """Return the command that asks a registry, with a folder's file for it, for an image."""
    options = ("images", "pull", "--hosts-dir", folder)
    return ("ctr", "--timeout", "5s", *CTR[1:], *options, name)


def notice_command(name: str) -> tuple[str, ...]:
    """Return the command that has CRI look at a record again.

    CRI takes a record over when it hears of a change, and labels it; containerd 1.7's transfer
    service tells nobody (containerd #9039). Taking the label away is such a change.
    """
    return (*CTR, "images", "label", name, f"{CRI_LABEL}=")


def remove_command(names: Sequence[str], *, wait: bool = False) -> tuple[str, ...]:
    """Return the command that takes names away; `wait` until what only they held is gone, too."""
    return (*CTR, "images", "rm", *(["--sync"] if wait else []), "--", *names)


def parse_version(text: str) -> tuple[int, int]:
    """Return major and minor of the server in ``ctr version``'s answer, or (0, 0)."""
    match = _VERSION.search(text)
    return (int(match.group(1)), int(match.group(2))) if match else (0, 0)


def parse_snapshotter(config: str) -> str | None:
    """Return CRI's snapshotter out of ``containerd config dump`` (kind #3871).

    That of the default runtime goes first. A configuration without the setting has containerd's
    documented default. None when the text is no configuration, or names no snapshotter.
    """
    try:
        plugins = tomllib.loads(config).get("plugins")
    except (ValueError, RecursionError):
        return None
    if not config.strip():
        return None
    runtimes = [dig(plugins, *path) for path in _RUNTIME_PATHS]
    of_runtimes = [dig(r, "runtimes", _default_runtime(r), "snapshotter") for r in runtimes]
    settings = [*of_runtimes, *(dig(plugins, *path) for path in _SNAPSHOTTER_PATHS)]
    set_to = next((value for value in settings if value), DEFAULT_SNAPSHOTTER)
    return set_to if isinstance(set_to, str) and _IDENTIFIER.fullmatch(set_to) else None


def _default_runtime(runtimes: Any) -> str:
    name = dig(runtimes, "default_runtime_name")
    return name if isinstance(name, str) and name else "runc"


def parse_registry_folders(config: str) -> tuple[str, ...] | None:
    """Return the folders of CRI's registries out of ``containerd config dump``; none are set: ().

    None when ``config_path`` names something else than absolute paths of plain characters.
    """
    paths = [(plugin, "registry", "config_path") for plugin in CRI_PLUGINS.values()]
    names = (_setting(config, paths) or "").split(":")
    if names == [""]:
        return ()
    return tuple(names) if all(map(_FOLDER.fullmatch, names)) else None


def _setting(config: str, paths: Sequence[tuple[str, ...]]) -> str | None:
    found = (dig(_plugins(config), *path) for path in paths)
    return next((value for value in found if isinstance(value, str) and value), None)


def _plugins(config: str) -> Any:
    try:
        return tomllib.loads(config).get("plugins")
    except (ValueError, RecursionError):
        return None


def parse_containers(text: str) -> frozenset[str]:
    """Return what the containers of ``ctr containers ls`` were made from, as it was called then."""
    rows = (line.split() for line in text.splitlines()[1:])
    return frozenset(row[1] for row in rows if len(row) > 2)  # noqa: PLR2004 - ID IMAGE RUNTIME


def parse_images(text: str) -> dict[str, Digest]:
    """Return the image records, name to target digest, of ``ctr images ls``."""
    rows = (line.split() for line in text.splitlines()[1:])
    return {row[0]: digest for row in rows if len(row) > 2 and (digest := Digest.maybe(row[2]))}  # noqa: PLR2004


def parse_unseen(text: str) -> frozenset[str]:
    """Return the names in ``ctr images ls`` that CRI has not taken over."""
    lines = text.splitlines()[1:]
    return frozenset(
        line.split()[0] for line in lines if line.strip() and f"{CRI_LABEL}=managed" not in line
    )


@attrs.frozen
class Content:
    """The content store: which blobs are there, and what their labels say of one another."""

    blobs: frozenset[Digest] = frozenset()
    configs: dict[Digest, Digest] = attrs.field(factory=dict)
    children: dict[Digest, tuple[Digest, ...]] = attrs.field(factory=dict)
    layers: dict[Digest, tuple[Digest, ...]] = attrs.field(factory=dict)

    def there_under(self, target: Digest, depth: int = 4) -> frozenset[Digest]:
        """Return the blobs that are there of a manifest or an index: its own, and all below."""
        config = [self.configs[target]] if target in self.configs else []
        own = self.blobs & {target, *config, *self.layers.get(target, ())}
        children = self.children.get(target, ()) if depth else ()
        return own.union(*(self.there_under(child, depth - 1) for child in children))

    def configs_under(self, target: Digest, depth: int = 4) -> frozenset[Digest]:
        """Return the configs of a manifest, or of all manifests under an index."""
        if target in self.configs:
            return frozenset([self.configs[target]])
        if not depth:
            return frozenset()
        below = (self.configs_under(c, depth - 1) for c in self.children.get(target, ()))
        return frozenset().union(*below)


def parse_content(text: str) -> Content:
    """Understand ``ctr content ls``; containerd labels each manifest with its config."""
    content = Content()
    blobs: set[Digest] = set()
    for line in text.splitlines()[1:]:
        digest = Digest.maybe(line.partition("\t")[0])
        if digest is None:
            continue
        blobs.add(digest)
        if match := _CONFIG_LABEL.search(line):
            content.configs[digest] = Digest.parse(match.group(1))
        if found := _CHILD_LABEL.findall(line):
            content.children[digest] = tuple(map(Digest.parse, found))
        if found := _LAYER_LABEL.findall(line):
            content.layers[digest] = tuple(map(Digest.parse, found))
    return attrs.evolve(content, blobs=frozenset(blobs))


def parse_snapshots(text: str) -> frozenset[Digest]:
    """Return the chain IDs that are unpacked, out of ``ctr snapshots ls``."""
    keys = (line.split() for line in text.splitlines()[1:])
    committed = (row[0] for row in keys if row and row[-1] == "Committed")
    return frozenset(digest for key in committed if (digest := Digest.maybe(key)))
