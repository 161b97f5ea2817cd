"""Images get the names to which pods resolve."""

from __future__ import annotations

import os
import secrets

import pytest

import imgload
from imgload.oci.digest import Digest
from tests.engine.conftest import Images, cri_id, forget, unique
from tests.lab import Lab

SUFFIX = Digest.of(os.environ.get("PYTEST_XDIST_TESTRUNUID", secrets.token_hex(4)).encode()).hex[:8]
"""The same in each process of a run, because pytest-xdist compares the collected tests."""
NAMES = {
    f"app{SUFFIX}": f"docker.io/library/app{SUFFIX}:latest",
    f"app{SUFFIX}:v1": f"docker.io/library/app{SUFFIX}:v1",
    f"o/app{SUFFIX}:v1": f"docker.io/o/app{SUFFIX}:v1",
    f"localhost/app{SUFFIX}:v2": f"localhost/app{SUFFIX}:v2",
    f"docker.io/library/app{SUFFIX}:v3": f"docker.io/library/app{SUFFIX}:v3",
    f"ghcr.io/o/app{SUFFIX}:v1": f"ghcr.io/o/app{SUFFIX}:v1",
    f"localhost:5000/app{SUFFIX}": f"localhost:5000/app{SUFFIX}:latest",
}
_ALWAYS = (f"app{SUFFIX}", f"localhost:5000/app{SUFFIX}")
"""Names that are loaded from Docker, too, in every run; Podman alone completes names."""


@pytest.mark.parametrize(
    ("source", "written"),
    [
        *(("podman", written) for written in NAMES),
        *((source, written) for source in ("docker", "docker28") for written in _ALWAYS),
        *(
            pytest.param(source, written, marks=pytest.mark.long)
            for source in ("docker", "docker28")
            for written in NAMES
            if written not in _ALWAYS
        ),
    ],
)
def test_an_image_gets_the_name_that_a_pod_resolves_to(
    lab: Lab, images: Images, source: str, written: str
) -> None:
    """Podman's ``localhost/`` is kept only if the user wrote it (podman #15974)."""
    engine, wanted = lab.engine(source), NAMES[written]
    node = lab.cluster("lab-d21").nodes[0]
    images.build(engine, written)
    report = imgload.load(written, cluster="lab-d21", source=engine.url)
    assert [image.reference for image in report.images] == [wanted]
    assert cri_id(node, wanted) == str(report.images[0].image_id)
    forget(node, wanted)


@pytest.mark.parametrize("source", ["docker", "podman"])
@pytest.mark.parametrize("length", [12, 64, 71])
def test_an_image_id_loads_the_image_under_its_names(
    lab: Lab, images: Images, source: str, length: int
) -> None:
    """A short ID, a full ID, and one with ``sha256:``; without Podman's ``localhost/``."""
    engine, tag = lab.engine(source), unique()
    node, name = lab.cluster("lab-d21").nodes[0], f"docker.io/library/{tag}"
    image_id = images.build(engine, tag)
    written = image_id if length == 71 else image_id.removeprefix("sha256:")[:length]
    report = imgload.load(written, cluster="lab-d21", source=source)
    assert [image.reference for image in report.images] == [name]
    assert cri_id(node, name) == image_id
    forget(node, name)


@pytest.mark.parametrize("source", ["docker", "podman", "docker28"])
def test_an_untagged_image_can_be_loaded(lab: Lab, images: Images, source: str) -> None:
    """Under its ID, which a pod can use (containerd #4474: ctr alone imports nothing)."""
    engine, tag = lab.engine(source), unique()
    target = images.build(engine, tag)
    images.build(engine, tag)  # the first image becomes untagged
    node = lab.cluster("lab-d21").nodes[0]
    report = imgload.load(target, cluster="lab-d21", source=engine.url)
    image_id = str(report.images[0].image_id)
    assert report.images[0].reference == image_id
    assert cri_id(node, image_id) == image_id
    assert engine.image_id(target) == target, "the engine still has it"
    forget(node, image_id)
    engine.cli("rmi", target)


def test_an_untagged_image_can_be_loaded_with_a_tag(lab: Lab, images: Images) -> None:
    """The tag is the name in the pod spec."""
    tag, name = unique(), f"docker.io/library/{unique()}"
    node = lab.cluster("lab-d21").nodes[0]
    image_id = images.build(lab.docker, tag)
    images.build(lab.docker, tag)
    report = imgload.load(image_id, cluster="lab-d21", source="docker", tag=name)
    assert [image.reference for image in report.images] == [name]
    assert cri_id(node, name) == image_id
    forget(node, name)
    lab.docker.cli("rmi", image_id)


def test_a_name_with_different_images_in_two_engines_is_ambiguous(lab: Lab, images: Images) -> None:
    """The error names both engines and both IDs."""
    node, tag = lab.cluster("lab-d21").nodes[0], unique()
    ids = [images.build(engine, tag) for engine in (lab.docker, lab.podman)]
    with pytest.raises(imgload.ImageAmbiguous) as caught:
        imgload.load(tag, cluster="lab-d21")
    for engine, image_id in zip((lab.docker, lab.podman), ids, strict=True):
        assert engine.url in caught.value.message
        assert image_id.removeprefix("sha256:")[:12] in caught.value.message
    assert "--from docker or --from podman" in caught.value.hint
    report = imgload.load(tag, cluster="lab-d21", source="podman")
    assert str(report.images[0].image_id) == ids[1]
    forget(node, f"docker.io/library/{tag}")


@pytest.mark.parametrize(("selected", "other"), [("docker", "podman"), ("podman", "docker")])
def test_an_image_that_only_another_engine_has_is_explained(
    lab: Lab, images: Images, selected: str, other: str
) -> None:
    """The error names that engine, and the hint selects it."""
    tag = unique()
    images.build(lab.engine(other), tag)
    with pytest.raises(imgload.ImageNotFound, match=f"{lab.engine(other).url} has it") as caught:
        imgload.load(tag, cluster="lab-d21", source=selected)
    assert (caught.value.hint, caught.value.image) == (f"--from {other}", tag)
    with pytest.raises(imgload.ImageNotFound) as caught:
        imgload.load(tag, cluster="lab-d21", source=lab.engine(selected).url)
    assert caught.value.hint == f"--from {lab.engine(other).url}"
    with pytest.raises(imgload.ImageNotFound) as caught:
        imgload.load(unique(), cluster="lab-d21", source=selected)
    assert "has it" not in caught.value.message


def test_podmans_short_name_resolution_is_ignored(lab: Lab, images: Images) -> None:
    """Podman finds quay.io/o/NAME for NAME, but a pod with NAME does not."""
    lab.up("lab-d21")
    tag = unique()
    images.build(lab.podman, f"quay.io/o/{tag}")
    with pytest.raises(imgload.ImageNotFound):
        imgload.load(tag, cluster="lab-d21", source="podman")


def test_one_tag_for_two_images_is_refused(lab: Lab, images: Images) -> None:
    """A tag is for one image."""
    tags = unique(), unique()
    for tag in tags:
        images.build(lab.docker, tag)
    with pytest.raises(imgload.UsageError):
        imgload.load(tags, cluster="lab-d21", tag="app:v1")
