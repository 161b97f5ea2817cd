"""A real tar hashes the members of the archive that a save on a node prints."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from imgload.clusters.nodes.docker import DockerNode
from imgload.clusters.nodes.saved import damaged_layers
from imgload.core.errors import ImgloadError, NodeFull, NodeUnusable, NotVerified
from imgload.oci.digest import Digest
from tests.unit.archives import pack
from tests.unit.fakes import RUNNING, LocalEngine

MEMBERS = {"config.json": b"{}", "a/layer.tar": b"one", "a b\nc/layer.tar": b"two"}
DIGESTS = [Digest.of(data) for data in MEMBERS.values()]


def damaged(folder: Path, script: str, digests: list[Digest]) -> list[Digest]:
    """Return the damaged ones of some layers, on a node whose save is a script."""
    node = DockerNode("dev", LocalEngine(folder), RUNNING)
    return damaged_layers(node, "app:dev", ("sh", "-c", script), str(folder), digests)


def test_each_member_of_the_archive_is_hashed(tmp_path: Path) -> None:
    """Names of members do not matter; a missing digest is damaged."""
    (tmp_path / "image.tar").write_bytes(pack(MEMBERS.items()))
    save = f"echo warning >&2; cat {shlex.quote(str(tmp_path / 'image.tar'))}"
    assert damaged(tmp_path, save, DIGESTS) == []
    absent = Digest.of(b"three")
    assert damaged(tmp_path, save, [absent, *DIGESTS]) == [absent]


@pytest.mark.parametrize(
    ("script", "kind", "message"),
    [
        ("echo warning; echo broken >&2; exit 1", NotVerified, "the layers of app:dev: broken"),
        ("exit 125", NotVerified, "status 125"),
        ("echo 'write: no space left on device' >&2; exit 1", NodeFull, "ran out of disk space"),
        ("printf '%600s' x", NodeUnusable, "tar has exit status"),
    ],
)
def test_a_failed_save_is_an_error(
    tmp_path: Path, script: str, kind: type[ImgloadError], message: str
) -> None:
    with pytest.raises(kind, match=message):
        damaged(tmp_path, script, DIGESTS)
