"""The report, and the document that machines read."""

import json

import attrs
import pytest

from imgload.clusters.nodes.proof import Proof
from imgload.core.errors import (
    EngineFailed,
    ImageNotFound,
    ImportFailed,
    NodeFull,
    NodeNotRunning,
    UsageError,
    error_json,
)
from imgload.loader.report import ImageResult, LoadFailed, NodeResult, Report
from imgload.oci.digest import Digest
from imgload.oci.platform import Platform
from tests.schema import complaints

ID = Digest.of(b"config")
PROOF = Proof(name=True, image_id=True, diff_ids=True, unpacked=True, cri=True)
GOOD = NodeResult("kind-control-plane", "full", PROOF, 1234, 1.23456)
BAD = NodeResult("kind-worker", None, error=NodeNotRunning("it is paused", hint="unpause it"))


def report(*nodes: NodeResult, dry_run: bool = False) -> Report:
    row = ImageResult("docker.io/library/app:dev", ID, "docker", Platform("linux", "amd64"), nodes)
    return Report((row,), dry_run)


def test_only_an_error_of_a_node_gets_the_name_of_the_node() -> None:
    """The error of a source is the same object in the results of all nodes."""
    of_source, of_node = EngineFailed("the save failed"), NodeFull("no space")
    results = [NodeResult(node, None, error=of_source) for node in ("n1", "n2")]
    results.append(NodeResult("n3", None, error=of_node))
    assert [result.error.node for result in results if result.error] == ["", "", "n3"]


def test_to_json_has_the_documented_keys() -> None:
    """`replaced` is the image ID that had the name before."""
    absent = frozenset(Digest.of(name) for name in (b"one", b"two"))
    partial = attrs.evolve(GOOD, proof=attrs.evolve(PROOF, absent=absent))
    assert report(partial, BAD).to_json() == {
        "version": 1,
        "images": [
            {
                "reference": "docker.io/library/app:dev",
                "image_id": str(ID),
                "source": "docker",
                "platform": "linux/amd64",
                "nodes": [
                    {
                        "node": "kind-control-plane",
                        "action": "full",
                        "transport": None,
                        "ok": True,
                        "bytes_sent": 1234,
                        "seconds": 1.235,
                        "replaced": None,
                        "content": "partial",
                        "content_reason": "2 layers are unpacked, but not in the content store",
                        "proof": {
                            "name": True,
                            "image_id": True,
                            "diff_ids": True,
                            "unpacked": True,
                            "cri": True,
                        },
                        "error": None,
                    },
                    {
                        "node": "kind-worker",
                        "action": None,
                        "transport": None,
                        "ok": False,
                        "bytes_sent": 0,
                        "seconds": 0.0,
                        "replaced": None,
                        "content": None,
                        "content_reason": None,
                        "proof": None,
                        "error": {
                            "kind": "node-not-running",
                            "message": "it is paused",
                            "hint": "unpause it",
                        },
                    },
                ],
            }
        ],
        "notes": [],
        "ok": False,
    }


@pytest.mark.parametrize("cri", [True, False, None])
def test_cri_is_null_only_without_crictl(*, cri: bool | None) -> None:
    """False fails the node, null does not."""
    node = attrs.evolve(GOOD, proof=attrs.evolve(PROOF, cri=cri))
    document = json.loads(json.dumps(report(node).to_json()))
    [row] = document["images"][0]["nodes"]
    assert row["proof"]["cri"] is cri
    assert row["ok"] is document["ok"] is (cri is not False)


@pytest.mark.parametrize(
    "node",
    [
        BAD,
        attrs.evolve(GOOD, proof=None),
        attrs.evolve(GOOD, error=ImportFailed("no")),
        attrs.evolve(GOOD, proof=attrs.evolve(PROOF, unpacked=False)),
    ],
)
def test_an_unverified_result_is_not_ok(node: NodeResult) -> None:
    """Even without an error (k3d #1484, minikube #21393: exit 0 after a failure)."""
    made = report(GOOD, node)
    assert not node.ok
    assert not made.ok
    assert made.failures() == [("docker.io/library/app:dev", node)]


def test_a_report_without_failures_is_ok() -> None:
    assert report(GOOD, GOOD).ok
    assert report(GOOD).failures() == []


def test_a_dry_run_is_ok_without_proofs() -> None:
    """Only a failed survey makes it fail."""
    planned = NodeResult("a", "full")
    assert report(planned, dry_run=True).to_json()["dry_run"] is True
    assert report(planned, dry_run=True).ok
    assert not report(planned, BAD, dry_run=True).ok
    assert "dry_run" not in report(GOOD).to_json()


def test_to_json_has_the_replaced_image() -> None:
    """Same tag, old pod (kind #696)."""
    node = attrs.evolve(GOOD, replaced=Digest.of(b"old"))
    assert node.to_json()["replaced"] == str(Digest.of(b"old"))


def test_an_unknown_image_id_is_null() -> None:
    """The transfer broke before the ID was known."""
    row = ImageResult("x", None, "docker", Platform("linux", "amd64"), (BAD,))
    assert row.to_json()["image_id"] is None


def test_load_failed_names_each_image_and_node() -> None:
    """The error has the whole report."""
    made = report(GOOD, BAD, attrs.evolve(GOOD, node="n3", proof=None))
    error = LoadFailed(made)
    assert error.report is made
    assert error.message.splitlines() == [
        "docker.io/library/app:dev on kind-worker: it is paused",
        "docker.io/library/app:dev on n3: not verified",
    ]
    assert error_json(error)["kind"] == "load-failed"


def test_the_errors_of_a_list_are_in_the_document() -> None:
    """The exit status is theirs if all failures have the same one."""
    missing = ImageNotFound("no image 'a'", hint="build it", image="a")
    made = attrs.evolve(report(GOOD), errors=(missing,))
    assert made.to_json()["errors"] == [
        {"kind": "image-not-found", "message": "no image 'a'", "hint": "build it", "image": "a"}
    ]
    assert not made.ok
    assert complaints(made.to_json()) == []
    statuses = [
        LoadFailed(attrs.evolve(report(node), errors=errors)).exit_status
        for node in (GOOD, BAD)
        for errors in ((missing,), (missing, UsageError("b")))
    ]
    assert statuses == [3, 1, 1, 1]
