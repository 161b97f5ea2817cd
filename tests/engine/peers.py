"""Call the real kind as its users do, and imgload in comparison."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from imgload.oci.document import IMAGE_NAME, INDEX
from tests.engine.relay import relay
from tests.lab import Cluster, Lab, Node
from tests.lab.engine import Engine
from tests.lab.kind import VERSIONS
from tests.unit import archives

NEWEST = VERSIONS[-1]
KIB, MIB = 1 << 10, 1 << 20

Done = subprocess.CompletedProcess[str]


def kind_load(
    lab: Lab, cluster: Cluster, *args: str | Path, version: str = NEWEST, **environ: str
) -> Done:
    """Run `kind load`, with kind's variable for a cluster on Podman."""
    return subprocess.run(
        [lab.kind(version), "load", *args, "--name", cluster.name],
        env={**os.environ, **lab.environ(cluster.engine.name), **environ},
        capture_output=True,
        text=True,
        check=False,
    )


def our_load(cluster: Cluster, *args: str | Path, **environ: str) -> Done:
    """Run `imgload load`."""
    return subprocess.run(
        [sys.executable, "-m", "imgload", "load", *args, "--cluster", cluster.name],
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        check=False,
    )


def traffic(engine: Engine, load: Callable[..., Done]) -> tuple[Done, int]:
    """Return the result of a load with Docker, and the bytes that were sent to the engine."""
    with tempfile.TemporaryDirectory() as folder, relay(engine, Path(folder)) as proxy:
        done = load(DOCKER_HOST=proxy.url)
    return done, proxy.sent


def printed(done: Done) -> str:
    """Return everything that a program printed."""
    return done.stdout + done.stderr


def wipe(cluster: Cluster) -> None:
    """Remove all images from a cluster that only this test uses."""
    for node in cluster.nodes:
        names = node.ctr("images", "ls", "-q").split()
        if names:
            node.ctr("images", "rm", "--sync", *names)


def snapshots(node: Node, snapshotter: str = "overlayfs") -> set[str]:
    """Return the chain IDs of the unpacked snapshots on a node."""
    rows = node.ctr("snapshots", "--snapshotter", snapshotter, "ls").splitlines()[1:]
    return {row.split()[0] for row in rows if row.split()[-1] == "Committed"}


def chain_id(node: Node, name: str) -> str:
    """Return the chain ID that CRI has for an image."""
    status = node.cri().image_status(name)
    assert status is not None
    return str(status["info"]["chainID"])


def image_of(tag: str) -> archives.Image:
    """Return a unique image, as buildx writes it."""
    layers = archives.layer(tag), archives.layer(f"top of {tag}")
    return archives.Image(layers, name=f"docker.io/library/{tag}", gzipped=True)


def pack_index(image: archives.Image, *entries: archives.Json) -> bytes:
    """Return an OCI archive whose only name refers to an index with these entries."""
    inner = archives.index(*entries)
    named = archives.descriptor(inner, INDEX, annotations=_names(image.name))
    files = [("index.json", archives.index(named)), ("oci-layout", _LAYOUT)]
    return archives.pack([*image.members, archives.blob(inner), *files])


def _names(name: str) -> dict[str, str]:
    tag = name.rpartition(":")[2]
    return {IMAGE_NAME: name, "org.opencontainers.image.ref.name": tag}


_LAYOUT = archives.encode({"imageLayoutVersion": "1.0.0"})
