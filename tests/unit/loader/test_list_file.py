"""The file of ``--file``, and its schema."""

from __future__ import annotations

from pathlib import Path

import pytest

from imgload import ImageEntry, UsageError
from imgload.core.yaml import read_documents
from imgload.loader.list_file import read_list
from tests.schema import complaints

LIST = """
images:
  - app:dev
  - name: db:dev
    source: podman
    tag: ghcr.io/me/db:1.10
    cluster: [kind, other]
    nodes: 'worker*'
    platform: linux/arm64
  - source: cache.tar
  - {name: "web:dev", source: "unix:///run/x.sock"}
  - {name: "web:v1", source: ../web.tar}
"""
WRONG = [
    ("- app:dev", "not one mapping", "images: ["),
    ("", "not one mapping", "images: ["),
    ("images: [a]\n---\nimages: [b]", "not one mapping", "images: ["),
    ("apiVersion: v1\nkind: Pod", "Kubernetes manifest", "imgload load --from-manifests "),
    ("image: [a]", "no such key: 'image'", "write images"),
    ("images: []", "a list of 1 to 1000", "images: ["),
    ("images: {a: b}", "a list of 1 to 1000", "images: ["),
    (f"images: [{'a,' * 1001}]", "a list of 1 to 1000", "images: ["),
    ("images:\n- a\n- nmae: b", "image 2 (line 3): no such key: 'nmae'", "write name"),
    (
        "images: [{name: a, xyz: b}]",
        "image 1 (line 1): no such key: 'xyz'",
        "use one of: name source",
    ),
    ("images: [[a]]", "image 1 must be a name, or a mapping", "images: ["),
    ("images: [~]", "image 1 must be a name, or a mapping", "images: ["),
    ("images:\n- name: a\n  tag:\n", "image 1 (line 2): tag must be a string", "omit the key"),
    ("images: [{name: ''}]", "name must be a string", "omit the key"),
    ("images: [{name: [a]}]", "name must be a string", "omit the key"),
    ("images: [{name: a, nodes: []}]", "nodes must be one or several strings", "omit the key"),
    ("images: [{name: a, nodes: [{}]}]", "nodes must be one or several strings", "omit the key"),
    ("images: [App:dev]", "image 1: not an image name: 'App:dev'", "as in a pod spec"),
    ("images: [{name: a, tag: B}]", "image 1 (line 1): not an image name: 'B'", "pod spec"),
    ("images: [{name: a, platform: linux}]", "not a platform: 'linux'", "os/arch"),
    ("images: [{tag: a}]", "needs a name, or the path of an archive", "images: ["),
    ("images: [{a: b", "is not valid YAML: line ", "images: ["),
    ("images: [{name: a, name: b}]", "line 1: 'name' is set twice", "images: ["),
    ("\x7fELF", "is not valid YAML: ", "imgload load app.tar"),
    ("images: &a [{name: *a}]", "name must be a string", "omit the key"),
]
NOT_IN_SCHEMA = ("App:dev", "tag: B", "platform: linux}")


def test_a_list_has_images_with_their_own_options(tmp_path: Path) -> None:
    """Paths are relative to the file; a name that is no file is passed on for the error."""
    file = tmp_path / "images.yaml"
    file.write_text(LIST)
    (tmp_path / "cache.tar").touch()
    assert read_list(str(file)) == [
        ImageEntry("app:dev"),
        ImageEntry(
            "db:dev",
            "podman",
            "ghcr.io/me/db:1.10",
            ("kind", "other"),
            ("worker*",),
            "linux/arm64",
        ),
        ImageEntry(source=str(tmp_path / "cache.tar")),
        ImageEntry("web:dev", "unix:///run/x.sock"),
        ImageEntry("web:v1", str(tmp_path / "../web.tar")),
    ]
    file.write_text("images: [{name: a, source: podmann}]")
    assert read_list(str(file)) == [ImageEntry("a", "podmann")]
    assert complaints(next(read_documents(LIST.encode())), "image-list") == []


@pytest.mark.parametrize(("text", "message", "hint"), WRONG)
def test_a_wrong_list_is_refused_with_its_file_and_image(
    tmp_path: Path, text: str, message: str, hint: str
) -> None:
    """The published schema refuses it, too, unless it is about the form of a name."""
    file = tmp_path / "images.yaml"
    file.write_text(text)
    with pytest.raises(UsageError) as refused:
        read_list(str(file))
    assert refused.value.message.startswith(str(file))
    assert message in refused.value.message
    assert hint in refused.value.hint
    if "YAML" in refused.value.message or any(part in text for part in NOT_IN_SCHEMA):
        return
    documents = list(read_documents(text.encode()))
    if len(documents) == 1 and "&" not in text:
        assert complaints(documents[0], "image-list")


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    """Also a large one, such as an archive; control characters of its name are escaped."""
    for path in (tmp_path / "none", tmp_path, "a\x1b[31m\nb", "x" * 5000, "\0"):
        with pytest.raises(UsageError, match="cannot read") as refused:
            read_list(str(path))
        assert refused.value.message.replace(" ", "").isprintable()
    large = tmp_path / "large.yaml"
    large.write_bytes(bytes((1 << 20) + 1))
    with pytest.raises(UsageError, match="larger than 1 MiB"):
        read_list(str(large))
    control = tmp_path / "a\x1b[31m\nb"
    control.write_text("images: [A]")
    with pytest.raises(UsageError) as refused:
        read_list(str(control))
    assert refused.value.message.isprintable()
