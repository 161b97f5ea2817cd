"""Lists of images: each with options of its own, in one run with one report."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import imgload
from imgload import ImageEntry
from tests.engine.apiserver import ApiServer
from tests.engine.conftest import Images, cri_id, forget, unique
from tests.lab import Lab
from tests.schema import complaints

CLUSTER = "lab-d21"
POD = "apiVersion: v1\nkind: Pod\nspec: {containers: [{image: %s}, {image: 'absent:v1'}]}\n"


def load(*arguments: str | Path, stdin: str = "", status: int = 0) -> Any:
    """Run ``imgload load`` with a pipe on stdin, and return its document."""
    command = [sys.executable, "-m", "imgload", "load", *map(str, arguments)]
    command += ["-c", CLUSTER, "-o", "json"]
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
    assert done.returncode == status, done.stdout + done.stderr
    document = json.loads(done.stdout)
    assert complaints(document) == []
    return document


def references(document: Any) -> list[str]:
    return [image["reference"].removeprefix("docker.io/library/") for image in document["images"]]


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
        ImageEntry(tags[0], source="docker"),
        ImageEntry(tags[1], source="podman", tag=shown),
        ImageEntry(source=str(archive)),
        ImageEntry("absent:v1", source="docker"),
        ImageEntry("absent:v2", source="docker", required=False),
        ImageEntry(tags[0], source="docker", tag=unique("s390x"), platform="linux/s390x"),
        ImageEntry(tags[0], source="docker", tag=unique("nowhere"), nodes="nowhere"),
        ImageEntry(tags[0], source="missing/c.tar", tag=unique("source")),
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
    assert report.errors[2].message.startswith(f"{listed[6].tag}: no node nowhere;")
    assert any("absent:v2" in note for note in report.notes)
    assert not report.ok
    assert failed.value.exit_status == 1
    assert complaints(report.to_json()) == []
    with pytest.raises(imgload.ImageNotFound, match="no source has any"):
        imgload.load_list(listed[4:5], cluster=CLUSTER)
    again = imgload.load_list(listed[:3], cluster=CLUSTER)
    assert [image.nodes[0].action for image in again.images] == ["present"] * 3
    assert again.errors == ()
    forget(node, *names)


def test_a_file_manifests_and_arguments_are_one_list(
    lab: Lab, images: Images, tmp_path: Path
) -> None:
    """Options of the command are defaults; an image that no engine has is a note if optional."""
    node, tags = lab.cluster(CLUSTER).nodes[0], [unique(name) for name in "abc"]
    shown = unique("shown")
    for engine, tag in zip((lab.docker, lab.podman, lab.podman), tags, strict=True):
        images.build(engine, tag)
    file, pod = tmp_path / "images.yaml", tmp_path / "pod.yaml"
    file.write_text(f"images: [{{name: '{tags[0]}', source: docker}}, {{source: c.tar}}]")
    pod.write_text(POD % tags[0])
    images.build(lab.docker, shown)
    lab.docker.cli("save", "-o", tmp_path / "c.tar", shown)
    arguments = (tags[1], "-f", file, "--from-manifests", pod, "--from-manifests", "-")
    document = load(*arguments, "--from", "podman", stdin=POD % tags[2])
    assert references(document) == [tags[1], tags[2], tags[0], shown]
    assert [image["source"] for image in document["images"][:3]] == ["podman", "podman", "docker"]
    assert sum("absent:v1" in note for note in document["notes"]) == 1
    names = [f"docker.io/library/{name}" for name in references(document)]
    assert all(cri_id(node, name) for name in names)
    forget(node, *names)


@pytest.mark.long
def test_a_name_with_a_digest_is_loaded_with_its_manifest(lab: Lab, images: Images) -> None:
    """If an engine stores that manifest; otherwise the nodes pull it."""
    node, tag = lab.cluster(CLUSTER).nodes[0], unique()
    images.build(lab.docker28, tag)
    pinned = f"{tag}@{lab.docker28.image_id(tag)}"
    absent = f"{tag}@sha256:{'0' * 64}"
    names = []
    for text in (pinned, absent):
        document = load("--from-manifests", "-", tag, "--from", lab.docker28.url, stdin=POD % text)
        names += [image["reference"] for image in document["images"]]
    assert any(absent in note for note in document["notes"])
    digest = f"docker.io/library/{tag.partition(':')[0]}@{lab.docker28.image_id(tag)}"
    assert names == [f"docker.io/library/{tag}", digest, f"docker.io/library/{tag}"]
    assert cri_id(node, digest)
    forget(node, *names[:2])


def test_the_images_of_a_workload_in_the_cluster_are_loaded(
    lab: Lab, images: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With `--restart`, each workload is restarted once, after all loads."""
    node, tags = lab.cluster(CLUSTER).nodes[0], [unique(), unique()]
    images.build(lab.docker, tags[0])
    images.build(lab.podman, tags[1])
    api = ApiServer()
    api.add_workload("Deployment", "default", "app", tags[0])
    api.add_workload("StatefulSet", "default", "db", tags[1])
    api.workloads[0]["spec"]["template"]["spec"]["initContainers"] = [{"image": tags[1]}]
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    monkeypatch.setenv("HOME", str(tmp_path))  # kubectl's cache
    file = tmp_path / "images.yaml"
    file.write_text(f"images: [{{name: '{tags[1]}', source: podman}}]")
    with api.listening(tmp_path / "kubeconfig", f"kind-{CLUSTER}"):
        live = ("--from-manifests", "deployment/app")
        document = load(*live, "-f", file, "--restart")
        assert references(document) == [tags[1], tags[0]]
        assert sorted(api.patched) == ["default/deployments/app", "default/statefulsets/db"]
        error = load("--from-manifests", "deployment/none", status=4)["error"]
    assert "deployment/none from kind-lab-d21: kubectl: " in error["message"]
    assert "get deployment/none" in error["hint"]
    forget(node, *(f"docker.io/library/{tag}" for tag in tags))
