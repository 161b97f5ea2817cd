"""Lists of images: each with options of its own, in one run with one report."""

from __future__ import annotations

from pathlib import Path

import pytest

import imgload
from imgload import ListedImage
from tests.engine.conftest import Images, cri_id, forget, unique
from tests.lab import Lab
from tests.schema import complaints

CLUSTER = "lab-d21"


def test_a_list_loads_each_image_from_its_own_source(
    lab: Lab, images: Images, tmp_path: Path
) -> None:
    """Also if others of the list fail, each for its own reason."""
    node, archive, shown = lab.cluster(CLUSTER).nodes[0], tmp_path / "c.tar", unique("shown")
    tags = [unique(name) for name in "abc"]
    engines = [lab.docker, lab.podman, lab.docker]
    ids = []
    for engine, tag in zip(engines, tags, strict=True):
        images.build(engine, tag)
        ids.append(engine.image_id(tag))
    lab.docker.cli("save", "-o", archive, tags[2])
    listed = [
        ListedImage(tags[0], source="docker"),
        ListedImage(tags[1], source="podman", tag=shown),
        ListedImage(source=str(archive)),
        ListedImage("absent:v1", source="docker"),
        ListedImage("absent:v2", source="docker", required=False),
        ListedImage(tags[0], source="docker", tag=unique("s390x"), platform="linux/s390x"),
        ListedImage(tags[0], source="docker", tag=unique("nowhere"), nodes="nowhere"),
        ListedImage(tags[0], source="missing/c.tar", tag=unique("source")),
    ]
    with pytest.raises(imgload.LoadFailed) as failed:
        imgload.load_list(listed, cluster=CLUSTER)
    report = failed.value.report
    names = [f"docker.io/library/{name}" for name in (tags[0], shown, tags[2])]
    assert [image.reference for image in report.images] == names
    assert [cri_id(node, name) for name in names] == ids
    assert report.failures() == []
    kinds = [error.kind for error in report.errors]
    assert kinds == ["image-not-found", "platform-missing", "node-not-found", "usage-error"]
    assert report.errors[0].image == "absent:v1"
    assert any("absent:v2" in note for note in report.notes)
    assert not report.ok
    assert failed.value.exit_status == 1
    assert complaints(report.to_json()) == []
    again = imgload.load_list(listed[:3], cluster=CLUSTER)
    assert [image.nodes[0].action for image in again.images] == ["present"] * 3
    assert again.errors == ()
    forget(node, *names)
