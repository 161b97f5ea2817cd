"""Which containerd a container runs, and how its programs are called."""

import pytest

from imgload.clusters.nodes import containerd
from imgload.clusters.nodes.runtime import CONTAINERD, K3S, LOOK, Containerd, parse_look
from imgload.core.errors import NodeUnusable

USUAL = "socket /run/containerd/containerd.sock\n"
OF_K3S = "socket /run/k3s/containerd/containerd.sock\n"
BOTH = "program ctr\nprogram crictl\n"


def test_commands_on_a_usual_node_are_unchanged() -> None:
    """kind's and minikube's."""
    assert CONTAINERD.resolve_command(containerd.CONTENT) == containerd.CONTENT
    assert CONTAINERD.resolve_command(["uname", "-m"]) == ("uname", "-m")


def test_k3s_needs_its_own_address() -> None:
    """Before the other arguments; other programs are unchanged."""
    assert K3S.resolve_command(containerd.CONTENT)[:3] == (
        "ctr",
        "--address",
        "/run/k3s/containerd/containerd.sock",
    )
    assert K3S.resolve_command(containerd.CONTENT)[3:] == containerd.CONTENT[1:]
    assert K3S.resolve_command(["uname", "-m"]) == ("uname", "-m")


@pytest.mark.parametrize(
    ("printed", "expected"),
    [(USUAL + BOTH, CONTAINERD), (OF_K3S + BOTH, K3S), (USUAL + OF_K3S + BOTH, K3S)],
)
def test_parse_look_recognises_containerd_by_its_socket(printed: str, expected: object) -> None:
    """Where k3s runs, pods run on its containerd."""
    assert parse_look(printed) == expected


@pytest.mark.parametrize("runtime", [CONTAINERD, K3S])
def test_crictl_connects_to_the_containerds_own_socket(runtime: Containerd) -> None:
    """Both endpoints: /etc/crictl.yaml may name others."""
    words = runtime.resolve_command(["crictl", "inspecti", "app"])
    endpoint = f"unix://{runtime.socket}"
    assert words[-7:] == ("crictl", "-r", endpoint, "-i", endpoint, "inspecti", "app")


def test_missing_programs_are_subcommands_of_k3s() -> None:
    """And k3s knows the address."""
    found = parse_look(f"{OF_K3S}program k3s\n")
    assert found.resolve_command(["ctr", "version"]) == ("k3s", "ctr", "version")
    assert found.resolve_command(["crictl", "images"])[4:6] == ("k3s", "crictl")
    assert found.config == K3S.config


@pytest.mark.parametrize("printed", ["", BOTH, "socket /run/docker.sock\n", "\0" * 1000])
def test_parse_look_refuses_a_container_without_containerd(printed: str) -> None:
    """The error names the sockets."""
    with pytest.raises(NodeUnusable, match=r"no /run/containerd/containerd\.sock") as caught:
        parse_look(printed)
    assert "imgload clusters" in caught.value.hint


def test_parse_look_refuses_a_containerd_without_ctr() -> None:
    """Nothing can control it."""
    with pytest.raises(NodeUnusable, match="no ctr"):
        parse_look(f"{USUAL}program crictl\n")


def test_look_is_one_shell_with_a_fixed_script() -> None:
    """Nothing from outside is in it."""
    shell, option, script = LOOK
    assert (shell, option) == ("sh", "-c")
    assert "/run/k3s/containerd/containerd.sock" in script
