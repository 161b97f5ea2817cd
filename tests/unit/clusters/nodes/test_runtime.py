"""Which containerd a container runs, and how its programs are called."""

import pytest

from imgload.clusters.nodes import containerd
from imgload.clusters.nodes.runtime import CONTAINERD, K3S, LOOK, Containerd, parse_look
from imgload.core.errors import NodeUnusable

USUAL = "socket /run/containerd/containerd.sock\n"
OF_K3S = "socket /run/k3s/containerd/containerd.sock\n"
BOTH = "program ctr\nprogram crictl\n"


def test_a_usual_node_is_spoken_to_as_it_is() -> None:
    """kind's and minikube's."""
    assert CONTAINERD.spelled(containerd.CONTENT) == containerd.CONTENT
    assert CONTAINERD.spelled(["uname", "-m"]) == ("uname", "-m")


def test_k3ss_containerd_listens_elsewhere() -> None:
    """The address comes before the rest; other programs are called as ever."""
    assert K3S.spelled(containerd.CONTENT)[:3] == (
        "ctr",
        "--address",
        "/run/k3s/containerd/containerd.sock",
    )
    assert K3S.spelled(containerd.CONTENT)[3:] == containerd.CONTENT[1:]
    assert K3S.spelled(["uname", "-m"]) == ("uname", "-m")


@pytest.mark.parametrize(
    ("printed", "expected"),
    [(USUAL + BOTH, CONTAINERD), (OF_K3S + BOTH, K3S), (USUAL + OF_K3S + BOTH, K3S)],
)
def test_the_containerd_is_told_by_its_socket(printed: str, expected: object) -> None:
    """Where k3s runs, its own is the pods'."""
    assert parse_look(printed) == expected


@pytest.mark.parametrize("runtime", [CONTAINERD, K3S])
def test_crictl_is_given_the_containerds_own_socket(runtime: Containerd) -> None:
    """Both endpoints: /etc/crictl.yaml may name another for each."""
    words = runtime.spelled(["crictl", "inspecti", "app"])
    endpoint = f"unix://{runtime.socket}"
    assert words[-7:] == ("crictl", "-r", endpoint, "-i", endpoint, "inspecti", "app")


def test_without_links_the_programs_are_within_k3s() -> None:
    """And k3s itself knows the address."""
    found = parse_look(f"{OF_K3S}program k3s\n")
    assert found.spelled(["ctr", "version"]) == ("k3s", "ctr", "version")
    assert found.spelled(["crictl", "images"])[4:6] == ("k3s", "crictl")
    assert found.config == K3S.config


@pytest.mark.parametrize("printed", ["", BOTH, "socket /run/docker.sock\n", "\0" * 1000])
def test_no_containerd_is_said(printed: str) -> None:
    """With where it was looked for."""
    with pytest.raises(NodeUnusable, match=r"no /run/containerd/containerd\.sock") as caught:
        parse_look(printed)
    assert "imgload clusters" in caught.value.hint


def test_a_containerd_without_ctr_is_said() -> None:
    """Nothing can be asked."""
    with pytest.raises(NodeUnusable, match="no ctr"):
        parse_look(f"{USUAL}program crictl\n")


def test_looking_takes_one_shell_and_no_name_from_outside() -> None:
    """The script is made of our own words."""
    shell, option, script = LOOK
    assert (shell, option) == ("sh", "-c")
    assert "/run/k3s/containerd/containerd.sock" in script
