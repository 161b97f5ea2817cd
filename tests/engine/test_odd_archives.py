"""Random odd archives: imgload loads each image that a peer loads, and verifies only complete ones.

The peers are kind and ctr on the same node, and Docker and Podman (``load``).

``ODD_SEEDS=7,9`` or ``ODD_SEEDS=100-160`` selects the archives; a failure names its seed.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import cached_property
from pathlib import Path

import attrs
import pytest

from tests.engine.odd import Archive, Built, Recipe, base_image, recipe
from tests.engine.peers import kind_load, printed
from tests.lab import Cluster, Lab, Node
from tests.lab.cri import Cri
from tests.lab.engine import Engine
from tests.lab.shell import CommandError
from tests.lab.store import Store

pytestmark = pytest.mark.long

_SEEDS = "0-120"
_PATIENCE = 3.0
_NOTICE = 0.3
_READ = """
set -e
folder=/run/odd key=odd-$$
mkdir -p $folder
view() {
    ctr -n k8s.io snapshots view $key "$1" >/dev/null
    ctr -n k8s.io snapshots mounts $folder $key | sh
    grep -q " $folder " /proc/mounts
}
view "$1" || { sleep 1; view "$1"; } # containerd may collect the view as garbage
(cd $folder && find . -type f -exec sha256sum {} +)
umount $folder
ctr -n k8s.io snapshots rm $key || true
"""


def seeds() -> list[int]:
    """Return the selected seeds."""
    chosen: list[int] = []
    for part in os.environ.get("ODD_SEEDS", _SEEDS).split(","):
        first, _, last = part.partition("-")
        chosen += range(int(first), int(last or first) + 1)
    return chosen


@attrs.frozen
class Loaded:
    """What a program left on the node: usable image IDs, and the names that CRI has for them."""

    images: frozenset[str] = frozenset()
    names: frozenset[tuple[str, str]] = frozenset()
    output: str = ""
    verified: frozenset[tuple[str, str]] = frozenset()
    missing_files: tuple[str, ...] = ()


@attrs.define(slots=False)
class Oracle:
    """Runs imgload and its peers with the same archive; the node is empty before."""

    lab: Lab
    cluster: Cluster

    @property
    def node(self) -> Node:
        return self.cluster.nodes[0]

    @cached_property
    def cri(self) -> Cri:
        return self.node.cri()

    @property
    def store(self) -> Store:
        return Store(self.cri.socket)

    def complaints(self, wanted: Recipe) -> list[str]:
        """Return what imgload does worse than a peer, or than the archive allows."""
        ours = self.run(wanted, self._load)
        # The archive of a peer has the same images in a form that it reads.
        view, runs = wanted.peer_view, {"kind": self._kind, "ctr": self._ctr}
        peers = {name: self.run(view, run) for name, run in runs.items()}
        for engine in (self.lab.docker, self.lab.podman):
            peers[f"{engine.name} load"] = _loaded_by(engine, wanted)
        problems = [*ours.missing_files]
        for name, peer in peers.items():
            problems += [f"{name} loads {x}, imgload not" for x in peer.images - ours.images]
            lacking = {x for x in peer.names - ours.names if x[0] in wanted.possible_names}
            problems += [f"{name} has the name {x}, imgload not" for x in lacking]
        for built in wanted.built:
            image_id, name = str(built.image_id), built.image.name
            if built.is_sound and image_id not in ours.images:
                problems.append(f"image {built.image.number} is sound, and not loaded")
            elif built.is_sound and built.has_name and (name, image_id) not in ours.names:
                problems.append(f"image {built.image.number} lacks its name {name}")
        return [*problems, ours.output] if problems else []

    def run(self, wanted: Recipe, load: Callable[[Path, Recipe], str]) -> Loaded:
        """Load an archive; return the state of the node."""
        self._wipe()
        for layers in {image.on_node for image in wanted.images if image.on_node}:
            self.node.ctr("images", "import", "-", stdin=base_image(wanted.seed, layers))
        with tempfile.TemporaryDirectory() as folder:
            output = load(Path(folder), wanted)
        return self._state(wanted, output)

    def _wipe(self) -> None:
        """Remove all images; CRI sometimes keeps some that containerd has not, for good."""
        store, cri = self.store, self.cri
        store.remove(sorted(store.records()))
        if store.snapshots():  # of a failed import without a record, until the next collection
            self.node.ctr("images", "import", "-", stdin=base_image(0, (0,)))
            store.remove(sorted(store.records()))
        end = time.monotonic() + _NOTICE
        while cri.list_images() and time.monotonic() < end:
            time.sleep(0.02)
        assert store.snapshots() == set()

    def _state(self, wanted: Recipe, output: str) -> Loaded:
        images = {str(built.image_id): built for built in wanted.built}
        verified = _verified(output)
        usable, names = self._usable(images)
        end = time.monotonic() + _PATIENCE  # CRI is notified of an image by an event
        while {x for _, x in verified} - usable and time.monotonic() < end:
            time.sleep(0.1)
            usable, names = self._usable(images)
        problems = []
        for name, image_id in verified:
            if image_id not in images:
                problems.append(f"verified is {name}, which is not an image of the archive")
            elif image_id not in usable:
                problems.append(f"verified is {name}, which CRI or its snapshots lack")
            elif lacking := self._lacking(images[image_id]):
                problems.append(f"verified is {name}, whose snapshot differs: {lacking}")
        return Loaded(usable, names, output, verified, tuple(problems))

    def _usable(
        self, images: Mapping[str, Built]
    ) -> tuple[frozenset[str], frozenset[tuple[str, str]]]:
        snapshots, records = self.store.snapshots(), self.store.records()
        usable = {
            found["id"]: found["repoTags"]
            for found in self.cri.list_images()
            if found["id"] in images and images[found["id"]].chain_id in snapshots
        }
        tags = ((tag, image) for image, names in usable.items() for tag in names)
        names = frozenset((t, i) for t, i in tags if t in records and "import-" not in t)
        return frozenset(usable), names

    def _lacking(self, built: Built) -> str:
        """Return the files that a snapshot, mounted read-only, does not have."""
        try:
            lines = self.node.exec("sh", "-c", _READ, "read", built.chain_id).splitlines()
        except CommandError as error:
            return str(error)
        read = {line[66:].removeprefix("./"): line[:64] for line in lines}
        files = {path: hashlib.sha256(data).hexdigest() for path, data in built.files.items()}
        return ", ".join(sorted(path for path in files if read.get(path) != files[path]))

    def _load(self, folder: Path, wanted: Recipe) -> str:
        path = Archive(wanted).write(folder)
        is_pipe = wanted.container == "pipe"
        options = ("--cluster", self.cluster.name, "--transport", wanted.transport)
        command = [sys.executable, "-m", "imgload", "load", "--from", "-" if is_pipe else str(path)]
        done = subprocess.run(
            [*command, *options, "--output", "json"],
            input=path.read_bytes() if is_pipe else b"",
            env={**os.environ, "XDG_CACHE_HOME": str(folder / "cache")},
            capture_output=True,
            check=False,
            timeout=60,
        )
        return done.stdout.decode() + done.stderr.decode()

    def _kind(self, folder: Path, wanted: Recipe) -> str:
        (folder / "images.tar").write_bytes(Archive(wanted).tar())
        path = folder / "images.tar"
        return printed(kind_load(self.lab, self.cluster, "image-archive", path))

    def _ctr(self, _folder: Path, wanted: Recipe) -> str:
        try:
            return self.node.ctr("images", "import", "-", stdin=Archive(wanted).tar())
        except CommandError as error:
            return str(error)


def _loaded_by(engine: Engine, wanted: Recipe) -> Loaded:
    """Load an archive into an engine; return the images and names that it has then."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "images.tar"
        path.write_bytes(Archive(wanted).tar())
        with suppress(CommandError):
            engine.cli("load", "--input", path)
    images: dict[str, list[str]] = {}
    for image in {str(built.image_id) for built in wanted.built}:
        with suppress(CommandError):
            listed = engine.cli("image", "inspect", "--format", "{{json .RepoTags}}", image)
            images[image] = json.loads(listed) or []
            engine.cli("image", "rm", "--force", image)
    names = {
        (name if "/" in name else f"docker.io/library/{name}", image)
        for image, tags in images.items()
        for name in tags
    }
    wrong = {str(built.image_id) for built in wanted.built if built.image.one_blob}
    images = {image: tags for image, tags in images.items() if image not in wrong}
    names = {(name, image) for name, image in names if image not in wrong}
    return Loaded(frozenset(images), frozenset(names))


def _verified(output: str) -> frozenset[tuple[str, str]]:
    """Return names and IDs of the images that imgload calls verified."""
    try:
        document = json.loads(output)
    except ValueError:
        return frozenset()
    images = document.get("images", ())
    return frozenset(
        (image["reference"], image["image_id"])
        for image in images
        if all(node["ok"] for node in image["nodes"])
    )


@pytest.fixture(scope="module")
def oracle(lab: Lab) -> Iterator[Oracle]:
    """A node that no other test uses."""
    cluster = lab.make_cluster(name="lab-odd", engine="docker", var_size="2g")
    yield Oracle(lab, cluster)
    cluster.remove()


def reduced(oracle: Oracle, wanted: Recipe) -> Recipe:
    """Return the recipe without the oddities that do not matter for its failure."""
    while simpler := next((x for x in wanted.simpler() if oracle.complaints(x)), None):
        wanted = simpler
    return wanted


@pytest.mark.parametrize("seed", seeds())
def test_imgload_is_never_worse_than_a_peer(oracle: Oracle, seed: int) -> None:
    """Usable images, names, and the files of every verified image."""
    wanted = recipe(seed)
    if problems := oracle.complaints(wanted):
        smallest = reduced(oracle, wanted)
        listed = "\n  ".join(problems)
        smaller = "\n  ".join(oracle.complaints(smallest))
        pytest.fail(f"{wanted}\n  {listed}\nreduced: {smallest}\n  {smaller}", pytrace=False)
