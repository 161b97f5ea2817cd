"""The hint for a failure on a node follows from what ctr says."""

import pytest

from imgload.clusters.nodes.causes import hint_for


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ("open /var/lib/x: read-only file system", "docker restart n"),
        ('ctr: wrong diff id calculated on extraction "sha256:ab"', "build the image again"),
        ("ctr: mismatched image rootfs and manifest layers", "build the image again"),
        ("ctr: image might be filtered out", "--platform"),
        ("lchown /x: operation not permitted", "user namespace"),
        ("failed to Lchown: lchown /x: invalid argument", "user namespace"),
        ('exec: "sh": executable file not found in $PATH', "talosctl image pull"),
        ("dial unix:///run/containerd/containerd.sock: connection refused", "restart containerd"),
    ],
)
def test_a_known_cause_has_its_own_hint(message: str, words: str) -> None:
    assert words in hint_for(message, command="docker exec n", restart="docker restart n")


def test_an_unknown_cause_has_no_hint() -> None:
    assert (
        hint_for("ctr: something else", command="docker exec n", restart="docker restart n") == ""
    )
