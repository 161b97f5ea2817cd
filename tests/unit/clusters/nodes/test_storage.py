"""The files of containers-storage, as Podman 4.3 and 5.8 wrote them, and where they are."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from imgload.clusters.nodes.batch import Output
from imgload.clusters.nodes.containerd import CriAnswer, parse_inspect
from imgload.clusters.nodes.crio import _RECEIVE, _framed
from imgload.clusters.nodes.storage import (
    CRIO_CONFIG,
    Storage,
    find_storage,
    read_search,
    read_store,
    read_users,
)
from imgload.core.errors import NodeUnusable
from imgload.oci.digest import Digest, chain_ids
from tests.unit.bounds import within

ID, MANIFEST, INDEX = ("a" * 64, "sha256:" + "b" * 64, "sha256:" + "c" * 64)
BASE, APP = (Digest.of(name.encode()) for name in ("base", "app"))
CHAIN = chain_ids((BASE, APP))
INFO = {
    "store": {"graphRoot": "/var/lib/containers/storage", "graphDriverName": "overlay"},
    "registries": {"search": ["docker.io", 5]},
}


def printed(value: object) -> Output:
    return Output(0, json.dumps(value).encode())


def image(**more: Any) -> dict[str, Any]:
    return {
        "id": ID,
        "digest": MANIFEST,
        "names": ["docker.io/library/app:v1"],
        "names-history": ["docker.io/library/old:v1"],
        "layer": "top",
        "metadata": "{}",
        "big-data-names": [f"sha256:{ID}", f"manifest-{MANIFEST}", "manifest", "signature-1"],
        "created": "2026-11-30T04:11:07.174134516Z",
        **more,
    }


def layer(layer_id: str, diff_id: Digest, parent: str = "", **more: Any) -> dict[str, Any]:
    return {"id": layer_id, "parent": parent, "diff-digest": str(diff_id), "diff-size": 9, **more}


LAYERS = [layer("bottom", BASE), layer("top", APP, "bottom")]


def test_the_store_has_names_layers_and_labels() -> None:
    """Images are also found by their digests in their repositories, and by their IDs."""
    pinned = f"quay.io:5000/x/app@{INDEX}"
    stored = image(
        names=["docker.io/library/app:v1", pinned],
        **{"big-data-names": [f"sha256:{ID}", f"manifest-{MANIFEST}", f"manifest-{INDEX}"]},
    )
    labels = Output(0, f"{ID}/imgload:imgload.loaded/app=1.5\n".encode())
    store = read_store(printed([stored]), printed(LAYERS), labels)
    assert {name: str(target) for name, target in store.records.items()} == {
        "docker.io/library/app:v1": MANIFEST,
        f"docker.io/library/app@{MANIFEST}": MANIFEST,
        f"docker.io/library/app@{INDEX}": INDEX,
        f"quay.io:5000/x/app@{MANIFEST}": MANIFEST,
        pinned: INDEX,
        f"sha256:{ID}": MANIFEST,
    }
    config, manifest = Digest("sha256", ID), Digest.parse(MANIFEST)
    assert store.content.configs_under(manifest) == {config}
    assert store.content.stored_layers(manifest, (BASE, APP)) == {BASE, APP}
    assert store.content.loaded_as("app") == {config: 1.5}
    assert store.snapshots == set(CHAIN)
    assert store.describe([APP])[APP].size == 9


@pytest.mark.parametrize("broken", [{"flags": {"incomplete": True}}, {"diff-digest": ""}])
def test_an_incomplete_layer_is_no_snapshot_nor_is_one_above_it(broken: dict[str, Any]) -> None:
    """A pull that was killed leaves such layers."""
    layers = [{**layer("bottom", BASE), **broken}, layer("top", APP, "bottom")]
    store = read_store(printed([image()]), printed(layers))
    assert store.snapshots == set()
    assert store.content.stored_layers(Digest.parse(MANIFEST), (BASE, APP)) is None


def test_manifest_lists_and_odd_names_are_left_out() -> None:
    listed = image(**{"big-data-names": ["manifest", f"manifest-{MANIFEST}"]})
    odd = image(names=["a@b", 5, None], layer="")
    store = read_store(printed([listed, odd, 5]))
    assert set(store.records) == {f"sha256:{ID}"}


def test_a_cycle_of_layers_ends() -> None:
    layers = [layer("top", APP, "bottom"), layer("bottom", BASE, "top")]
    with within(2):
        read_store(printed([image()]), printed(layers))


@pytest.mark.parametrize(
    "output",
    [
        Output(1, b"cat: permission denied"),
        Output(0, b"[{"),
        printed([image(id="nothing")]),
        printed([image(names=5)]),
        printed(5),
        Output(0, b"[" * 100_000),
    ],
)
def test_an_unreadable_store_is_refused(output: Output) -> None:
    with pytest.raises(NodeUnusable, match="store"):
        read_store(output)


def test_a_store_without_images_has_no_files() -> None:
    assert read_store(Output(0, b""), Output(0, b"")).records == {}


def test_containers_use_images() -> None:
    assert read_users([printed([{"image": ID}]), Output(0, b"")]) == {ID}
    with pytest.raises(NodeUnusable, match="containers"):
        read_users([Output(1, b"")])


NOT_ASKED = Output(127, b"")
ANSWER = Output(
    0, b'{"status": {"imageFilesystems": [{"fsId": {"mountpoint": "/crio/root/vfs-images"}}]}}'
)


@pytest.mark.parametrize(
    ("files", "answer", "root", "options"),
    [
        (b"", NOT_ASKED, "/var/lib/containers/storage", ()),
        (b'[crio]\nroot = ""\n\0', NOT_ASKED, "/var/lib/containers/storage", ()),
        (b'[crio]\nroot = "/a"\n\0[crio]\nroot = "/b"\n\0no toml\0', NOT_ASKED, "/b", ("/b",)),
        (b'[crio]\nroot = "/b"\n\0', ANSWER, "/crio/root", ("/crio/root",)),
    ],
)
def test_crios_store_is_the_running_ones_or_configured(
    files: bytes, answer: Output, root: str, options: tuple[str, ...]
) -> None:
    """CRI's answer takes precedence over files, the last of which takes precedence."""
    storage = find_storage(INFO, Output(0, files), answer)
    assert storage.root == root
    assert storage.podman[:2] == ("podman", *(f"--root={x}" for x in options))
    assert read_search(INFO) == ("docker.io",)


@pytest.mark.parametrize("value", ["../x", "/a b", "--root=/x", "/a/../b"])
def test_a_folder_that_is_no_plain_path_is_refused(value: str) -> None:
    with pytest.raises(NodeUnusable, match="root"):
        find_storage(INFO, Output(0, f"[crio]\nroot = {value!r}\n\0".encode()), NOT_ASKED)
    with pytest.raises(NodeUnusable, match="folder"):
        find_storage({"store": {"graphRoot": value}}, Output(0, b""), NOT_ASKED)


def test_labels_are_written_and_read_in_the_folder_of_an_image(tmp_path: Path) -> None:
    """An image that was removed meanwhile gets none."""
    storage = Storage(str(tmp_path))
    (tmp_path / "overlay-images" / ID).mkdir(parents=True)
    loaded = [("$(x)", Digest("sha256", ID)), ("gone", BASE)]
    subprocess.run(storage.label(loaded, 1.5), check=True)
    subprocess.run(storage.label([("b", Digest("sha256", ID))], 2), check=True)
    labels = subprocess.run(storage.read[-1], capture_output=True, check=False).stdout
    assert read_store(Output(0, b""), labels=Output(0, labels)).labels == {
        ID: "imgload.loaded/$(x)=1.500,imgload.loaded/b=2.000"
    }


def test_the_settings_of_crio_may_be_absent() -> None:
    done = subprocess.run(CRIO_CONFIG, capture_output=True, check=True)
    assert find_storage(INFO, Output(0, done.stdout), NOT_ASKED).podman == ("podman",)


def chunks() -> Iterator[bytes]:
    yield from (b"\n0\n", b"", bytes(5 << 20), b"end")


@pytest.mark.parametrize("cut", [False, True])
def test_a_stream_in_pieces_is_received_whole_or_not_at_all(tmp_path: Path, *, cut: bool) -> None:
    """The input may stay open after its end; a connection that breaks ends it early."""
    sent = b"".join(_framed(chunks()))
    folder = tmp_path / "folder"
    script = _RECEIVE + 'cat "$folder/image.tar"; read -r rest; echo "$rest"'
    done = subprocess.run(
        ["sh", "-c", script, "imgload", folder],
        input=sent[:-2] if cut else sent + b"rest\n",
        capture_output=True,
        check=False,
    )
    assert done.stdout == (b"" if cut else b"".join(chunks()) + b"rest\n")
    assert (done.returncode == 0) is not cut
    assert not folder.exists()


def test_crio_reports_an_image_id_without_its_algorithm() -> None:
    """CRI-O, server/image_status.go; containerd adds the algorithm."""
    for text in (ID, f"sha256:{ID}"):
        answer = parse_inspect(printed({"status": {"id": text}}))
        assert answer == CriAnswer(Digest("sha256", ID))
    answer = parse_inspect(printed({"status": {"id": None}}))
    assert answer is not None
    assert answer.failure
