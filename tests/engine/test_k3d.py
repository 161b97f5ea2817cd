"""The images that the k3d drop-in loads; its choice of nodes is tested elsewhere."""

from __future__ import annotations

import sys
from pathlib import Path

import attrs
import pytest

from imgload.cli.dropin import run
from imgload.tools.dropins.tool import K3D
from tests.engine.conftest import Images, cri_id, forget, unique
from tests.lab import Lab


def test_the_k3d_drop_in_loads_images_archives_and_stdin(
    lab: Lab, images: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Into two clusters with one call, although stdin can be read only once; k3d fails there."""
    tool = attrs.evolve(K3D, name="kind")
    monkeypatch.chdir(tmp_path)
    tags = [unique() for _ in range(3)]
    ids = [images.build(lab.docker, tag) for tag in tags]
    for archive, tag in zip(("file", "pipe"), tags[1:], strict=True):
        lab.docker.cli("save", "-o", tmp_path / archive, tag)
    clusters = [lab.cluster(name) for name in ("lab-d21", "lab-p21")]
    into = [f"-c{cluster.name}" for cluster in clusters]
    assert run(tool, ["image", "import", tags[0], "file", *into]) == 0
    with Path("pipe").open() as pipe:
        monkeypatch.setattr(sys, "stdin", pipe)
        assert run(tool, ["images", "load", "-", *into]) == 0
    for cluster in clusters:
        [node] = cluster.nodes
        names = [f"docker.io/library/{tag}" for tag in tags]
        assert [cri_id(node, name) for name in names] == ids
        forget(node, *names)
