"""`imgload verify`: check that every node has exactly this image."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from xml.etree import ElementTree as ET

import pytest

import imgload
from imgload.clusters.nodes import batch
from imgload.engines import exec_stream as attached
from tests.engine.conftest import Images, forget, records, unique
from tests.engine.test_rollback import program
from tests.lab import Lab

BLOBS = "/var/lib/containerd/io.containerd.content.v1.content/blobs/sha256"
LAYERS = "{{json .RootFS.Layers}}"


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "imgload", "verify", *arguments]
    return subprocess.run(command, env=os.environ, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("source", ["docker", "docker28", "podman"])
def test_a_loaded_image_is_verified(lab: Lab, images: Images, source: str) -> None:
    """Verification changes nothing on the node."""
    engine, node, tag = lab.engine(source), lab.cluster("lab-d21").nodes[0], unique()
    images.build(engine, tag)
    imgload.load(tag, cluster="lab-d21", source=engine.url)
    before = records(node)
    report = imgload.verify(tag, cluster="lab-d21", source=engine.url)
    result = report.images[0].nodes[0]
    assert report.ok
    assert result.proof
    assert result.proof.cri is True
    assert records(node) == before
    forget(node, f"docker.io/library/{tag}")


def test_verify_names_each_node_that_differs(lab: Lab, images: Images) -> None:
    """One node has the image, one an older build, one nothing: exit status 1."""
    good, stale, bare = lab.cluster("lab-d3").nodes
    tag = unique()
    name = f"docker.io/library/{tag}"
    images.build(lab.docker, tag, b"old")
    imgload.load(tag, nodes=[stale.name])
    images.build(lab.docker, tag, b"new")
    imgload.load(tag, nodes=[good.name])

    ended = _run(tag, "-c", "lab-d3", "-o", "json", "--from", "docker")

    document = json.loads(ended.stdout)
    errors = {n["node"]: n["error"] for n in document["images"][0]["nodes"]}
    assert ended.returncode == 1
    assert document["ok"] is False
    assert errors[good.name] is None
    assert f"another image under {name}" in errors[stale.name]["message"]
    assert f"does not have {name}" in errors[bare.name]["message"]
    assert errors[bare.name]["hint"] == f"imgload load {tag} --from docker --node {bare.name}"
    assert name not in records(bare)
    forget(good, name)
    forget(stale, name)


def test_a_missing_blob_fails_verification(lab: Lab, images: Images) -> None:
    """The name exists, but the config's blob was removed."""
    node, tag = lab.cluster("lab-d17").nodes[0], unique()
    image_id = images.build(lab.docker, tag)
    imgload.load(tag, cluster="lab-d17")
    node.ctr("content", "rm", image_id)
    with pytest.raises(imgload.LoadFailed, match="only in part"):
        imgload.verify(tag, cluster="lab-d17")
    node.ctr("images", "rm", f"docker.io/library/{tag}")


def test_verify_writes_junit(lab: Lab, images: Images) -> None:
    """A test case for each node; an image that no engine has is an error, and exit status 3."""
    node, tag = lab.cluster("lab-d21").nodes[0], unique()
    images.build(lab.docker, tag)
    absent = _run(tag, "-c", "lab-d21", "-o", "junit")
    unknown = _run("nobody/has-this:1", "-c", "lab-d21", "-o", "junit")
    failure = ET.fromstring(absent.stdout).find("./testsuite/testcase/failure")
    error = ET.fromstring(unknown.stdout).find("./testsuite/testcase/error")
    assert (absent.returncode, unknown.returncode) == (1, 3)
    assert failure is not None
    assert failure.get("type") == "not-verified"
    assert node.name in str(failure.get("message"))
    assert error is not None
    assert error.get("type") == "image-not-found"


def test_an_engine_that_cannot_push_is_read_with_a_save(lab: Lab, images: Images) -> None:
    """Docker's containerd store reports no image ID, and this engine cannot reach the receiver."""
    engine, tag = lab.engine("docker28-cut-off"), unique()
    images.build(engine, tag)
    source = engine.url
    with pytest.raises(imgload.LoadFailed, match="does not have"):
        imgload.verify(tag, cluster="lab-d17", source=source)
    imgload.load(tag, cluster="lab-d17", source=source)
    assert imgload.verify(tag, cluster="lab-d17", source=source).ok
    forget(lab.cluster("lab-d17").nodes[0], f"docker.io/library/{tag}")


def test_deep_verification_waits_for_a_slow_blob(
    lab: Lab, images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As long as sha256sum makes progress."""
    node, tag = lab.cluster("lab-d21").nodes[0], unique()
    images.build(lab.docker, tag)
    imgload.load(tag, cluster="lab-d21", transport="archive")
    monkeypatch.setattr(attached, "SILENT_SECONDS", 2.0)
    monkeypatch.setattr(batch, "KEEPALIVE_SECONDS", 0.3)
    slow = """if [ "$3$4" = contentget ] && [ ! -e /run/first-import ]; then mkdir /run/first-import
      elif [ "$3$4" = contentget ] && mkdir /run/second-import; then for i in 1 2 3 4 5 6 7 8; do
      head -c 4000000 /dev/zero; sleep 0.5; done; exit; fi; exec /usr/bin/ctr "$@" """
    with program(node, "ctr", slow), pytest.raises(imgload.LoadFailed) as caught:
        imgload.verify(tag, cluster="lab-d21", source="docker", deep=True)
    assert isinstance(caught.value.report.images[0].nodes[0].error, imgload.NotVerified)
    forget(node, f"docker.io/library/{tag}")


@pytest.mark.parametrize(("engine", "cluster"), [("docker", "lab-d21"), ("podman", "lab-p17")])
def test_deep_verification_finds_a_damaged_blob(
    lab: Lab, images: Images, engine: str, cluster: str
) -> None:
    """Neither containerd nor CRI reads the blob again."""
    node, tag = lab.cluster(cluster).nodes[0], unique()
    name = f"docker.io/library/{tag}"
    images.build(lab.engine(engine), tag, b"content" * 1000)
    shown = lab.engine(engine).cli("image", "inspect", "--format", LAYERS, tag)
    diff_id = json.loads(shown)[0]
    options = ("-c", cluster, "--from", engine, "-o", "json")
    imgload.load(tag, cluster=cluster, source=engine, transport="archive")
    assert imgload.verify(tag, cluster=cluster, source=engine, deep=True).ok
    node.exec("sh", "-c", f"echo oops > {BLOBS}/{diff_id.removeprefix('sha256:')}")

    assert imgload.verify(tag, cluster=cluster, source=engine).ok
    with pytest.raises(imgload.LoadFailed, match=f"damaged content: {diff_id}"):
        imgload.load(tag, cluster=cluster, source=engine, verify="deep")
    ended = _run(tag, "--deep", *options)

    result = json.loads(ended.stdout)["images"][0]["nodes"][0]
    assert ended.returncode == 1
    assert result["proof"]["content"] is False
    assert f"content rm {diff_id}, and load" in result["error"]["hint"]
    node.ctr("content", "rm", diff_id)
    assert (
        imgload.verify(tag, cluster=cluster, source=engine, deep=True).images[0].nodes[0].content
        == "partial"
    )
    report = imgload.load(tag, cluster=cluster, source=engine, verify="deep", complete=True)
    assert report.images[0].nodes[0].content == "complete"
    forget(node, name)
