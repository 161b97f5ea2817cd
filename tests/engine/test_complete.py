"""Nodes store all layers of an image, or the report says which images are partial."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import attrs
import pytest

import imgload
from imgload.core.errors import ArchiveInvalid
from imgload.oci.digest import Digest
from imgload.sources.base import TransportOption
from tests.engine.conftest import Images, cases, cri_id, forget, record_digest, unique
from tests.lab import Lab, Node
from tests.lab.engine import Engine
from tests.unit import archives

BLOBS = "var/lib/containerd/io.containerd.content.v1.content/blobs"
HALF_ZEROS = os.urandom(200_000) + bytes(200_000)


def is_complete(node: Node, name: str) -> bool:
    """Return the answer of ``ctr images check``."""
    [row] = node.ctr("images", "check", f"name=={name}").splitlines()[1:]
    return row.split()[3] == "complete"


def result(report: imgload.Report) -> imgload.NodeResult:
    return report.images[0].nodes[0]


def copy_image(origin: Engine, engine: Engine, name: str) -> str:
    """Copy an image to another engine; return its name there."""
    if engine is origin:
        return name
    return engine.raw("load", stdin=origin.raw("save", name)).decode().split(": ")[-1].strip()


@attrs.frozen
class Case:
    """A base and an image on top of it: their engines, the node, and the base's transport."""

    base: str
    image: str
    cluster: str = "lab-d21"
    transport: TransportOption = "auto"
    archive: bool = False


CASES = {
    f"{base}-{image}-{cluster}-{transport}{'-archive' if archive else ''}": Case(
        base, image, cluster, transport, archive
    )
    for cluster in ("lab-d21", "lab-d17", "lab-d16")
    for base, image in (
        ("podman", "docker"),
        ("docker", "podman"),
        ("docker28", "docker"),
        ("docker", "docker28"),
        ("docker", "docker"),
    )
    for transport in ("auto", "import")
    for archive in (False, True)
}
SHORT = ("podman-docker-lab-d21-auto", "docker28-docker-lab-d21-import")


@pytest.mark.parametrize("case", cases(CASES, SHORT))
def test_a_base_in_another_form_stays_complete(
    lab: Lab, images: Images, tmp_path: Path, case: Case
) -> None:
    """It is not sent again, although this run knows neither its blobs nor their sizes."""
    node, base, tag = lab.cluster(case.cluster).nodes[0], unique("base"), unique()
    names = [f"docker.io/library/{image}" for image in (base, tag)]
    first, second = lab.engine(case.base), lab.engine(case.image)
    images.build(first, base, HALF_ZEROS)
    imgload.load(base, cluster=case.cluster, source=first.url, transport=case.transport)
    images.build(second, tag, base=copy_image(first, second, base))
    shutil.rmtree(tmp_path / "cache")
    source = second.url
    if case.archive:
        source = str(tmp_path / "image.tar")
        Path(source).write_bytes(second.raw("save", tag))
    loaded = result(imgload.load(tag, cluster=case.cluster, source=source))
    assert (loaded.action, loaded.content) == ("delta", "complete")
    assert case.archive or loaded.bytes_sent < 20_000
    assert is_complete(node, names[1])
    forget(node, *names)


@pytest.mark.parametrize("source", ["docker", "docker28", "podman"])
@pytest.mark.parametrize("cluster", ["lab-d21", "lab-d17", "lab-d16"])
def test_complete_sends_the_layers_that_are_only_unpacked(
    lab: Lab, images: Images, source: str, cluster: str
) -> None:
    """Without it, they are not sent, and the report says so; the hint is the command."""
    engine, node = lab.engine(source), lab.cluster(cluster).nodes[0]
    base, tag = unique("base"), unique()
    name = f"docker.io/library/{tag}"
    images.build(engine, base, HALF_ZEROS)
    images.build(engine, tag, base=base)
    discarded = imgload.load(base, cluster=cluster, source=engine.url, discard_layers=True)
    partial = result(imgload.load(tag, cluster=cluster, source=engine.url))
    assert (result(discarded).content, partial.content) == ("partial", "partial")
    assert partial.ok
    assert partial.bytes_sent < 20_000
    assert not is_complete(node, name)
    assert imgload.verify(tag, cluster=cluster, source=engine.url, deep=True).ok

    ended = imgload_run(
        "verify", tag, "-c", cluster, "--from", engine.url, "--complete", "-o", "json"
    )
    refused = json.loads(ended.stdout)["images"][0]["nodes"][0]
    assert ended.returncode == 1
    assert refused["content"] == "partial"
    assert refused["content_reason"]
    assert refused["error"]["kind"] == "not-verified"
    assert imgload_run(*shlex.split(refused["error"]["hint"])[1:]).returncode == 0
    assert is_complete(node, name)
    verified = result(imgload.verify(tag, cluster=cluster, source=engine.url, complete=True))
    assert (verified.action, verified.content) == ("present", "complete")
    forget(node, name, f"docker.io/library/{base}")


def imgload_run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "imgload", *arguments]
    return subprocess.run(command, env=os.environ, capture_output=True, text=True, check=False)


class EmptyBlobs(archives.Image):
    """An image whose manifest has one empty blob for all layers but the first."""

    @property
    def config(self) -> bytes:
        return archives.encode({**json.loads(super().config), "author": "pack"})

    @property
    def blobs(self) -> tuple[bytes, ...]:
        return (*super().blobs[:1], *[b""] * (len(self.layers) - 1))


def empty_docker(*images: archives.Image) -> list[archives.Entry]:
    """Return a docker-archive with these blobs: the files of the empty layers are links to one."""
    [image] = images
    entries = archives.docker20(attrs.evolve(image, layers=image.blobs))
    listed = json.loads(dict(entries)["manifest.json"])
    listed[0]["Config"] = "config.json"
    rest = [entry for entry in entries if entry[0] != "manifest.json"]
    return [*rest, ("config.json", image.config), ("manifest.json", archives.encode(listed))]


@pytest.mark.parametrize("transport", ["pull", "import", "delta"])
def test_docker_may_store_an_empty_blob_for_several_layers(
    lab: Lab, tmp_path: Path, transport: TransportOption
) -> None:
    """Docker accepts such an image although it cannot unpack it."""
    docker, node, tag = lab.docker28, lab.cluster("lab-d21").nodes[0], unique("whole")
    layers = tuple(archives.layer(f"{tag} {number}") for number in range(3))
    names = [f"docker.io/library/{image}" for image in (tag, unique("empty"))]
    whole = tmp_path / "whole.tar"
    whole.write_bytes(archives.pack(archives.oci(archives.Image(layers, names[0], gzipped=True))))
    image = EmptyBlobs(layers, names[1], gzipped=True)
    docker.raw("load", stdin=archives.pack(archives.oci(image)))
    with pytest.raises(imgload.ImgloadError):
        imgload.load(names[1], cluster="lab-d21", source=docker.url, transport=transport)
    imgload.load([], cluster="lab-d21", source=whole)
    loaded = result(
        imgload.load(names[1], cluster="lab-d21", source=docker.url, transport=transport)
    )
    assert (loaded.ok, loaded.content) == (True, "complete")
    assert cri_id(node, names[1]) == str(image.image_id)
    forget(node, *names)
    docker.remove_image(names[1])


@pytest.mark.parametrize("transport", ["pull", "import"])
@pytest.mark.parametrize("form", [archives.oci, empty_docker])
def test_an_empty_blob_for_several_layers_needs_nodes_that_have_them(
    lab: Lab, tmp_path: Path, transport: TransportOption, form: Callable[..., list[archives.Entry]]
) -> None:
    """pack #2490. The error names the image and the layers."""
    node, tag = lab.cluster("lab-d21").nodes[0], unique("whole")
    layers = tuple(archives.layer(f"{tag} {number}") for number in range(3))
    names = [f"docker.io/library/{image}" for image in (tag, unique("empty"))]
    whole, empty = (tmp_path / file for file in ("whole.tar", "empty.tar"))
    whole.write_bytes(archives.pack(archives.oci(archives.Image(layers, names[0], gzipped=True))))
    image = EmptyBlobs(layers, names[1], gzipped=form is archives.oci)
    empty.write_bytes(archives.pack(form(image)))
    with pytest.raises(ArchiveInvalid) as caught:
        imgload.load([], cluster="lab-d21", source=empty, transport=transport)
    assert caught.value.image == names[1]
    assert all(str(Digest.of(layer)) in caught.value.message for layer in layers[1:])
    imgload.load([], cluster="lab-d21", source=whole, transport=transport)
    loaded = result(imgload.load([], cluster="lab-d21", source=empty, transport=transport))
    assert (loaded.ok, loaded.content) == (True, "complete")
    assert cri_id(node, names[1]) == str(image.image_id)
    assert is_complete(node, names[1])
    forget(node, *names)


@pytest.mark.parametrize(
    "cluster", cases({c: c for c in ("lab-d21", "lab-d17", "lab-d16")}, ["lab-d21"])
)
def test_a_complete_pull_leaves_what_peer_to_peer_registries_serve(
    lab: Lab, images: Images, cluster: str
) -> None:
    """Spegel advertises blobs with a label of their source, and serves the files of the content
    store (spegel, pkg/oci/containerd/containerd.go)."""
    node, base, tag = lab.cluster(cluster).nodes[0], unique("base"), unique()
    names = [f"docker.io/library/{image}" for image in (base, tag)]
    images.build(lab.docker, base, HALF_ZEROS)
    images.build(lab.docker, tag, base=base)
    for image in (base, tag):
        loaded = result(imgload.load(image, cluster=cluster, transport="pull", complete=True))
        assert (loaded.transport, loaded.content) == ("pull", "complete")
        source = re.compile(r"containerd\.io/distribution\.source\.docker\.io=library/")
        manifest = record_digest(node, f"docker.io/library/{image}")
        listed = json.loads(node.ctr("content", "get", manifest))
        rows = {row.split()[0]: row for row in node.ctr("content", "ls").splitlines()[1:]}
        for blob in ({"digest": manifest}, listed["config"], *listed["layers"]):
            assert source.search(rows[blob["digest"]])
            content = (node.root / BLOBS / blob["digest"].replace(":", "/")).read_bytes()
            assert str(Digest.of(content)) == blob["digest"]
    forget(node, *names)
