"""Reports of real loads, held against the published schema."""

from __future__ import annotations

import json
from collections.abc import Callable

import imgload
from imgload.loader.report import Report
from tests.engine.conftest import Images, forget, unique
from tests.lab import Lab
from tests.schema import Json, complaints


def document(run: Callable[..., Report], image: str, **options: object) -> Json:
    """Return the document of a run, good or bad, as it is printed."""
    try:
        report = run(image, cluster="lab-d21", source="docker", **options)
    except imgload.LoadFailed as error:
        report = error.report
    found: Json = json.loads(json.dumps(report.to_json()))
    return found


def test_every_report_matches_the_schema(lab: Lab, images: Images) -> None:
    """Planned, not there, sent, present, under another name, rebuilt, verified."""
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
    assert [complaints(each) for each in documents] == [[]] * len(documents)
    assert actions == ["full", None, "full", "present", "tagged", "delta", "present"]
