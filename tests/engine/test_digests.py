"""Names with a digest: usable offline, or refused (kind #2394)."""

from __future__ import annotations

from pathlib import Path

import pytest

import imgload
from imgload.core.errors import ManifestMissing
from imgload.oci.digest import Digest
from imgload.oci.document import INDEX
from tests.engine.conftest import Images, cri_id, forget, record_digest, unique
from tests.lab import Lab
from tests.unit.archives import Image, blob, descriptor, index, layer, pack

CLUSTERS = ["lab-d16", "lab-d17", "lab-d21"]


@pytest.mark.parametrize("cluster", CLUSTERS)
@pytest.mark.parametrize("transport", ["delta", "archive"])
def test_a_manifest_is_loaded_by_its_digest(
    lab: Lab, images: Images, cluster: str, transport: str
) -> None:
    """From Docker's containerd store; CRI finds the image by `repo@digest`."""
    node, tag = lab.cluster(cluster).nodes[0], unique()
    repository = tag.partition(":")[0]
    digest = images.build(lab.docker28, tag)
    for text in (f"{repository}@{digest}", f"{tag}@{digest}"):
        report = imgload.load(
            text,
            cluster=cluster,
            source=lab.docker28.url,
            transport=transport,  # type: ignore[arg-type]
        )
        name = f"docker.io/library/{repository}@{digest}"
        assert report.images[0].reference == name
        assert record_digest(node, name) == digest
        assert cri_id(node, name) == str(report.images[0].image_id)
    assert report.images[0].nodes[0].action == "present"
    forget(node, name)


@pytest.mark.parametrize("cluster", CLUSTERS)
def test_an_index_is_loaded_by_its_digest(lab: Lab, tmp_path: Path, cluster: str) -> None:
    """An index with one present and one absent platform, and an attestation."""
    node, tag = lab.cluster(cluster).nodes[0], unique()
    image = Image((layer(tag),), name=f"docker.io/library/{tag}", gzipped=True)
    absent = {**image.entry, "digest": f"sha256:{'1' * 64}"}
    arm = {**absent, "platform": {"os": "linux", "architecture": "arm64"}}
    unknown = {**absent, "platform": {"os": "unknown", "architecture": "unknown"}}
    inner = index(image.entry, arm, unknown)
    path = tmp_path / "image.tar"
    members = [*image.members, blob(inner), ("oci-layout", b"{}")]
    path.write_bytes(pack([*members, ("index.json", index(descriptor(inner, INDEX)))]))
    name = f"ghcr.io/o/app@{Digest.of(inner)}"
    report = imgload.load(name, cluster=cluster, source=str(path))
    assert report.images[0].nodes[0].ok
    assert record_digest(node, name) == str(Digest.of(inner))
    assert cri_id(node, name) == str(image.image_id)
    forget(node, name)


@pytest.mark.parametrize("source", ["docker", "podman"])
def test_a_digest_that_the_source_lacks_is_refused(lab: Lab, images: Images, source: str) -> None:
    """Exit status 6 with the reason, and nothing on the node; kind loads an unusable image."""
    engine, node, tag = lab.engine(source), lab.cluster("lab-d21").nodes[0], unique()
    images.build(engine, tag)
    name = f"docker.io/library/app@sha256:{'0' * 64}"
    with pytest.raises(ManifestMissing, match="demands") as refused:
        imgload.load(tag, cluster="lab-d21", source=engine.url, tag=name)
    assert refused.value.exit_status == 6
    assert "OCI archive" in refused.value.hint
    assert cri_id(node, name) is None
    assert name not in node.ctr("images", "ls", "-q").split()
