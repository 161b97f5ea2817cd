"""Validate reports of real loads against the published schema."""

from __future__ import annotations

import json
from collections.abc import Callable

import imgload
from imgload.loader.report import Report
from tests.engine.conftest import Images, forget, unique
from tests.lab import Lab
from tests.schema import Json, complaints


def document(run: Callable[..., Report], image: str, **options: object) -> Json:
    """Return the JSON document of a successful or failed run."""
    try:
        report = run(image, cluster="lab-d21", source="docker", **options)
    except imgload.LoadFailed as error:
        report = error.report
    printed: Json = json.loads(json.dumps(report.to_json()))
    return printed


def test_every_report_matches_the_schema(lab: Lab, images: Images) -> None:
    """Planned, missing, sent, present, tagged, rebuilt, and verified images."""
    node, base, tag = lab.cluster("lab-d21").nodes[0], unique("base"), unique()
    images.build(lab.docker, base)
    images.build(lab.docker, tag, base=base)
    documents = [
        document(imgload.load, tag, dry_run=True),
        document(imgload.verify, tag),
        document(imgload.load, tag),
        document(imgload.load, tag),
        document(imgload.load, tag, tag=f"{tag}-2"),
    ]
    images.build(lab.docker, tag, base=base)
    documents += [document(imgload.load, tag), document(imgload.verify, tag)]
    forget(node, f"docker.io/library/{tag}", f"docker.io/library/{tag}-2")
    actions = [d["images"][0]["nodes"][0]["action"] for d in documents]
    assert [complaints(report) for report in documents] == [[]] * len(documents)
    assert actions == ["full", None, "full", "present", "tagged", "delta", "present"]
