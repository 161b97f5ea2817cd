"""The names of images in Kubernetes manifests."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest

from imgload import ImageEntry, UsageError
from imgload.loader.manifests import read_manifests

POD = "apiVersion: v1\nkind: Pod\nspec: {containers: [{image: pod:v1}]}"
TEMPLATE = """
apiVersion: apps/v1
kind: %s
metadata: {annotations: {note: "containers: [{image: text:v1}]"}}
spec:
  template:
    spec:
      initContainers: [{image: init:v1}]
      containers: [{image: app:v1}, {image: app:v1}, {image: side:v1}, {name: none}]
      ephemeralContainers: [{image: "debug:v1"}]
      volumes: [{image: {reference: "model:v1"}}, {emptyDir: {}}]
status: {containerStatuses: [{image: "status:v1"}]}
"""
IN_TEMPLATE = ["init:v1", "app:v1", "side:v1", "debug:v1", "model:v1"]
CRON = "spec: {jobTemplate: {spec: {template: {spec: {containers: [{image: 'job:v1'}]}}}}}"
CUSTOM = "spec: {roles: [{pod: {containers: [{image: 'a:v1'}]}}, {containers: [{image: 'b:v1'}]}]}"
LIST = f"kind: List\nitems:\n- {CRON}\n- {CUSTOM}\n"
SCHEMA = "kind: CustomResourceDefinition\nspec: {properties: {containers: {items: {image: x}}}}"
ALIASES = """
base: &base {image: "base:v1"}
x: &x {containers: [*base, {<<: *base, name: a}], loop: &y [*x, *y]}
"""
JSON = '{\n\t"items": [{"spec": {"containers": [{"image": "json:v1"}]}}]}'


@pytest.mark.parametrize(
    ("text", "names"),
    [
        (POD, ["pod:v1"]),
        *((TEMPLATE % kind, IN_TEMPLATE) for kind in ("Deployment", "Job", "Rollout")),
        (CRON, ["job:v1"]),
        (CUSTOM, ["a:v1", "b:v1"]),
        (LIST, ["job:v1", "a:v1", "b:v1"]),
        (f"{POD}\n---\n---\n{SCHEMA}\n---\n{CRON}", ["pod:v1", "job:v1"]),
        (ALIASES, ["base:v1"]),
        (JSON, ["json:v1"]),
    ],
)
def test_images_are_found_in_every_kind_of_object(
    monkeypatch: pytest.MonkeyPatch, text: str, names: list[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    assert read_manifests("-", ()) == [ImageEntry(name, required=False) for name in names]


def test_the_manifests_of_a_folder_are_read_in_order(tmp_path: Path) -> None:
    """As by kubectl: not those in folders below, nor files with other names."""
    for name in ("b.yml", "a.yaml", "c.json", "d.txt", "sub/e.yaml"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"containers: [{{image: '{Path(name).stem}'}}]")
    (tmp_path / "f.yaml").mkdir()
    assert [image.name for image in read_manifests(str(tmp_path), ())] == ["a", "b", "c"]
    assert [image.name for image in read_manifests(str(tmp_path / "d.txt"), ())] == ["d"]


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        (SCHEMA, "no manifest in", "name manifests of"),
        ("", "no manifest in", "name manifests of"),
        ("containers: [{image: {{ .Values.image }}}]", "not valid YAML: line 1", "helm template"),
        ("containers: [{image: 'ko://x'}]", "not an image name: 'ko://x'", "helm template"),
        ('containers: [{image: "a\\e[31m\\nb"}]', "not an image name", "helm template"),
    ],
)
def test_manifests_that_name_no_valid_image_are_refused(
    tmp_path: Path, text: str, message: str, hint: str
) -> None:
    file = tmp_path / "app.yaml"
    file.write_text(text)
    with pytest.raises(UsageError) as refused:
        read_manifests(str(file), ())
    assert str(file) in refused.value.message
    assert message in refused.value.message
    assert refused.value.message.isprintable()
    assert hint in refused.value.hint
    with pytest.raises(UsageError, match="cannot read"):
        read_manifests(str(tmp_path / "none.yaml"), ())


def test_a_file_with_the_name_of_a_workload_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "deployment").mkdir()
    Path("deployment/app").write_text(POD)
    assert [image.name for image in read_manifests("deployment/app", ())] == ["pod:v1"]
