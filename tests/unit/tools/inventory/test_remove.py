"""The commands that remove an image, in a real shell."""

from pathlib import Path

import attrs
import pytest

from imgload.clusters.nodes.node import Node
from imgload.core.errors import NodeUnusable
from imgload.oci.digest import Digest
from imgload.tools.inventory.node_images import Inventory, NodeImage, Storage
from imgload.tools.inventory.remove import remove_images
from tests.unit.fakes import RUNNING, LocalEngine

ID = Digest.of(b"app")
PROGRAMS = {"containerd": "echo version = 2"}
BY_IMPORT = f"import-2026-11-23@{ID}"


def removed(folder: Path, *records: str, taken: str = "docker.io/library/other:v1") -> list[str]:
    """Return how ctr was called to change something."""
    log = folder / "log"
    script = f"""case "$*" in
      *" tag "*|*" rm "*) echo "$*" >>{log} ;;
      version) echo Server: ;;
      *" ls -q "*) for word; do case "$word" in name==*,target*)
        word=${{word#name==\\"}}; echo "${{word%%\\"*}}";; esac; done ;;
      *) echo HEAD ;;
    esac"""
    image = NodeImage(ID, records=records, targets=(ID,))
    other = attrs.evolve(image, image_id=Digest.of(b"other"), records=(taken,))
    node = Node("kind-worker", LocalEngine(folder, PROGRAMS | {"ctr": script}), RUNNING)
    after = remove_images(node, [image], Inventory((image, other), Storage({}, {})))
    assert after.images == ()
    return log.read_text().splitlines()


def test_remove_images_removes_all_records_in_one_synchronous_call(tmp_path: Path) -> None:
    """A name is never taken for an option."""
    lines = removed(tmp_path, "docker.io/library/app:dev", "-x", str(ID))
    assert lines == [f"-n k8s.io images rm --sync -- docker.io/library/app:dev -x {ID}"]


def test_remove_images_first_tags_a_record_with_its_normalised_name(tmp_path: Path) -> None:
    """Else CRI lists the image for ever (kind #3369)."""
    full = f"docker.io/library/{BY_IMPORT}"
    assert removed(tmp_path, BY_IMPORT) == [
        f"-n k8s.io images tag -- {BY_IMPORT} {full}",
        f"-n k8s.io images rm --sync -- {BY_IMPORT} {full}",
    ]


def test_remove_images_does_not_take_another_images_name(tmp_path: Path) -> None:
    """It would be removed with the image."""
    lines = removed(tmp_path, "app:v1", taken="docker.io/library/app:v1")
    assert lines == ["-n k8s.io images rm --sync -- app:v1"]


def test_remove_images_fails_if_the_node_cannot_be_listed_afterwards(tmp_path: Path) -> None:
    node = Node("kind-worker", LocalEngine(tmp_path, {"ctr": "exit 1"}), RUNNING)
    image = NodeImage(ID, records=("app:v1",))
    with pytest.raises(NodeUnusable, match="kind-worker"):
        remove_images(node, [image], Inventory((image,), Storage({}, {})))
