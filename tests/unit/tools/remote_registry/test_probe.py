"""Probes of CRI, with recorded output of crictl and containerd 2.3.4."""

from __future__ import annotations

from pathlib import Path

import pytest

from imgload.clusters.nodes.node import Node
from imgload.core.errors import NodeUnusable, RegistryError
from imgload.tools.remote_registry.probe import reads_folder, require_registry
from imgload.tools.remote_registry.url import RegistryUrl
from tests.unit.fakes import RUNNING, LocalEngine

URL = RegistryUrl.parse("http://registry:5403")
FATAL = r"""printf 'time="2026-11-29T03:18:16Z" level=fatal msg="pulling image: %s"\n' \
    "$(printf %s "$1" | sed 's/"/\\"/g')" >&2; exit 1"""
PULL = 'failed to pull and unpack image \\"$image\\": failed to resolve image: '
REFUSED = f'{PULL}failed to do request: Head \\"$url/v2/imgload/probe/manifests/none\\": dial tcp: '


def crictl(root: Path, message: str, url: str) -> str:
    """A crictl whose CRI pulls from an address, and answers."""
    return f"""
fatal() {{ {FATAL}; }}
for image; do :; done
file={root}/${{image%%/*}}/hosts.toml
url={url}
fatal "{message}"
"""


FROM_FILE = '$(sed -n "s/^server = .\\(.*\\).$/\\1/p" "$file")'


def node(folder: Path, script: str | None) -> Node:
    programs = {"timeout": 'shift; exec "$@"'}
    if script is not None:
        programs["crictl"] = script
    return Node("n", LocalEngine(folder, programs), RUNNING)


def test_reads_folder_is_true_when_cri_names_the_address_in_the_file(tmp_path: Path) -> None:
    root = tmp_path / "certs.d"
    crictl_node = node(tmp_path, crictl(root, f"{REFUSED}connection refused", FROM_FILE))
    assert reads_folder(crictl_node, str(root), URL) is True
    assert not root.exists()


@pytest.mark.parametrize("kept", [True, False])
def test_reads_folder_is_false_when_cri_contacts_the_named_registry(
    tmp_path: Path, *, kept: bool
) -> None:
    """The default of containerd 2.2 and later, which pull through the transfer service."""
    root = tmp_path / "certs.d"
    if kept:
        root.mkdir()
    crictl_node = node(
        tmp_path, crictl(root, f"{REFUSED}connection refused", "https://${image%%/*}")
    )
    assert reads_folder(crictl_node, str(root), URL) is False
    assert root.exists() == kept
    assert not kept or list(root.iterdir()) == []


def test_reads_folder_is_false_when_a_mirror_for_all_names_answers(tmp_path: Path) -> None:
    root = tmp_path / "certs.d"
    crictl_node = node(tmp_path, crictl(root, f"{PULL}$image: not found", "none"))
    assert reads_folder(crictl_node, str(root), URL) is False


def test_reads_folder_is_none_without_crictl(tmp_path: Path) -> None:
    assert reads_folder(node(tmp_path, "exit 127"), str(tmp_path / "certs.d"), URL) is None


def test_reads_folder_fails_when_crictl_does_not_reach_cri(tmp_path: Path) -> None:
    root = tmp_path / "certs.d"
    message = "rpc error: code = Unavailable desc = dial unix /run/x.sock: no such file"
    with pytest.raises(NodeUnusable, match=r"x\.sock"):
        reads_folder(node(tmp_path, crictl(root, message, "none")), str(root), URL)
    assert not root.exists()


def test_reads_folder_fails_when_it_cannot_create_the_folder(tmp_path: Path) -> None:
    with pytest.raises(NodeUnusable):
        reads_folder(node(tmp_path, "exit 0"), f"{tmp_path}/absent/certs.d", URL)


@pytest.mark.parametrize(
    ("message", "reached"),
    [
        (f"{PULL}$image: not found", True),
        (f"{PULL}pull access denied, or: insufficient_scope: authorization failed", True),
        (f"{PULL}unexpected status from HEAD request to $url/v2/: 403 Forbidden", True),
        (f"{REFUSED}lookup registry: no such host", False),
        (f"{REFUSED}connect: connection refused", False),
        (f"{PULL}unexpected status from HEAD request to $url/v2/: 502 Bad Gateway", False),
    ],
)
def test_require_registry_passes_when_the_registry_answers_for_the_image(
    tmp_path: Path, message: str, *, reached: bool
) -> None:
    """A port number that looks like a status is not an answer."""
    crictl_node = node(tmp_path, crictl(tmp_path, message, str(URL)))
    if reached:
        require_registry(crictl_node, URL, "/root", by_cri=True)
    else:
        with pytest.raises(RegistryError):
            require_registry(crictl_node, URL, "/root", by_cri=True)
