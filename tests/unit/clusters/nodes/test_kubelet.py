"""A kubelet's configuration and pull records."""

import json
import shlex
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgload.clusters.nodes.kubelet import Kubelet
from imgload.oci.digest import Digest

ID = Digest.of(b"config")
NAME = "docker.io/library/app:dev"
CONFIG = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n"
FILE = f"sha256-{sha256(str(ID).encode()).hexdigest()}"


def on_node(*argv: str) -> str:
    return shlex.join(["docker", "exec", "n", *argv])


def record(*repositories: str, image: str = str(ID)) -> str:
    """Return a record as the kubelet writes it (pullmanager/testdata/pulled)."""
    mapping = {r: {"kubernetesSecretCoordinates": [{"name": "s"}]} for r in repositories}
    kind = {"kind": "ImagePulledRecord", "apiVersion": "kubelet.config.k8s.io/v1alpha1"}
    return json.dumps({**kind, "imageRef": image, "credentialMapping": mapping}) + "\n"


def kubelet(*lines: str, records: str = "") -> Kubelet:
    parsed = Kubelet.parse(CONFIG + "".join(f"{line}\n" for line in lines) + records)
    assert parsed
    return parsed


def test_a_node_without_configuration_has_no_kubelet() -> None:
    """As the lab's nodes."""
    assert Kubelet.parse("\n") is None


@pytest.mark.parametrize(
    ("lines", "free", "removes"),
    [
        ((), 16, False),
        ((), 15, True),
        (("imageGCHighThresholdPercent: 90",), 11, False),
        (("imageGCHighThresholdPercent: 90",), 10, True),
        (("imageGCHighThresholdPercent: 100",), 0, False),
        (("  imageGCHighThresholdPercent: 100",), 15, True),
    ],
)
def test_images_are_removed_from_the_threshold_on(
    lines: tuple[str, ...],
    free: int,
    removes: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    """85 percent by default; kind sets 100, which turns it off."""
    assert kubelet(*lines).removes_images(free, 100) is removes


def test_a_pull_record_under_another_name_is_named() -> None:
    """Its repositories, its file, and a command that removes it (kubernetes #138175)."""
    of = kubelet(records=record("ghcr.io/me/app"))
    what, hint = of.refusal(NAME, ID, on_node) or ("", "")
    assert "ghcr.io/me/app" in what
    assert f"rm /var/lib/kubelet/image_manager/pulled/{FILE} " in hint
    assert "AlwaysVerify" not in hint


@pytest.mark.parametrize(
    ("lines", "records"),
    [
        ((), ""),
        ((), record("docker.io/library/app", "ghcr.io/me/app")),
        ((), record("ghcr.io/me/app", image="sha256:0")),
        (("imagePullCredentialsVerificationPolicy: NeverVerify",), record("ghcr.io/me/app")),
        (
            (
                "imagePullCredentialsVerificationPolicy: NeverVerifyAllowlistedImages",
                "preloadedImagesVerificationAllowlist:",
                "- registry.k8s.io/*",
                '- "docker.io/library/*"',
            ),
            record("ghcr.io/me/app"),
        ),
    ],
)
def test_other_images_are_usable(lines: tuple[str, ...], records: str) -> None:
    """No record, one under this name, of another image, and lenient policies."""
    assert kubelet(*lines, records=records).refusal(NAME, ID, on_node) is None


def test_a_policy_that_refuses_loaded_images_is_named() -> None:
    """AlwaysVerify with and without a record, and a list without the image."""
    policy = "imagePullCredentialsVerificationPolicy: "
    always = kubelet(f"{policy}'AlwaysVerify'").refusal(NAME, ID, on_node)
    both = kubelet(f"{policy}AlwaysVerify", records=record("ghcr.io/me/app"))
    listed = kubelet(
        f"{policy}NeverVerifyAllowlistedImages",
        "preloadedImagesVerificationAllowlist: # ours",
        "  - docker.io/library/app2",
    ).refusal(NAME, ID, on_node)
    assert always
    assert "sed -i s/AlwaysVerify/NeverVerifyPreloadedImages/" in always[1]
    assert "rm " not in always[1]
    assert f"pulled/{FILE}" in (both.refusal(NAME, ID, on_node) or ("", ""))[1]
    assert listed
    assert "docker.io/library/app" in listed[0]


@given(st.text())
def test_any_text_is_parsed(text: str) -> None:
    """A node's files are untrusted."""
    of = Kubelet.parse(f"{text}\n{{{text}\n{json.dumps([text])}\n{json.dumps({'imageRef': text})}")
    assert of
    of.refusal(NAME, ID, on_node)
