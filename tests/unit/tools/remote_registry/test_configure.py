"""Registry URLs and names, hosts.toml files, and probes of CRI.

The probes have recorded output of crictl and containerd 2.3.4.
"""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgload.clusters.nodes.containerd import parse_registry_folders
from imgload.clusters.nodes.node import Node
from imgload.core.errors import ImgloadError, NodeUnusable, RegistryError, UsageError
from imgload.tools.remote_registry.configure import (
    MARK,
    RegistryUrl,
    folders,
    hosts_toml,
    reads_folder,
    registry_line,
    registry_names,
    require_registry,
)
from tests.unit.fakes import RUNNING, LocalEngine

URL = RegistryUrl.parse("http://registry:5000")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("http://registry:5000", "http://registry:5000"),
        ("https://registry.example/", "https://registry.example"),
        ("http://[fd00::1]:5000", "http://[fd00::1]:5000"),
        ("localhost:5001", "http://localhost:5001"),
        ("127.0.0.2:5001", "http://127.0.0.2:5001"),
    ],
)
def test_parse_accepts_hosts_with_and_without_a_port(text: str, expected: str) -> None:
    """A trailing slash is not a path. As for ``docker push``, a loopback address is plain HTTP."""
    assert str(RegistryUrl.parse(text)) == expected


@pytest.mark.parametrize(
    "text",
    [
        *("", "registry:5000", "ftp://registry", "http://", "http://registry/path"),
        *("http://me:secret@registry", "http://registry:70000", "http://registry:0"),
        *("http://..", "http://a/../b", 'http://a"b', "http://a b", "http://a\nb", "http://-a"),
        *("http://$(reboot)", "http://a;b", "http://a?b", "http://a#b", "http://a%2fb"),
    ],
)
def test_parse_refuses_any_other_text(text: str) -> None:
    """The host becomes the name of a folder on the nodes, and part of a file."""
    with pytest.raises(UsageError) as caught:
        RegistryUrl.parse(text)
    assert "http://registry:5000" in caught.value.hint


@pytest.mark.parametrize(
    "name", ["..", ".", "a/b", "/etc", "", "a b", "$(id)", "localhost:x", "localhost:99999"]
)
def test_registry_names_refuses_an_invalid_mirror(name: str) -> None:
    """It becomes the name of a folder, too."""
    with pytest.raises(UsageError):
        registry_names(URL, [name])


def test_registry_names_lists_the_registry_and_its_mirrors() -> None:
    """containerd knows Docker Hub only as docker.io."""
    names = registry_names(URL, ["index.docker.io", "docker.io", "localhost:5001"])
    assert names == ("registry:5000", "docker.io", "localhost:5001")


@given(st.text(max_size=60))
def test_accepted_hosts_are_single_folders_and_valid_toml(text: str) -> None:
    try:
        url = RegistryUrl.parse(f"http://{text}")
    except ImgloadError:
        return
    for folder in folders(url.host):
        assert "/" not in folder
        assert folder not in {"", ".", ".."}
    read = tomllib.loads(hosts_toml(url, url.host))
    assert list(read["host"]) == [str(url)]
    assert registry_line(url).count("\n") == 0


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("localhost:5000", True),
        ("127.0.0.1:5000", True),
        ("[::1]:5000", True),
        ("0.0.0.0:5000", True),
        ("app.localhost", True),
        ("registry:5000", False),
        ("10.0.0.1:5000", False),
    ],
)
def test_is_loopback_detects_the_node_itself(host: str, *, loopback: bool) -> None:
    """The most common mistake."""
    assert RegistryUrl("http", host).is_loopback is loopback


def test_hosts_toml_sets_no_server_for_a_mirror() -> None:
    """containerd then falls back to the registry with that name."""
    own = tomllib.loads(hosts_toml(URL, "registry:5000"))
    mirror = hosts_toml(URL, "docker.io")
    assert own["server"] == "http://registry:5000"
    assert "server" not in tomllib.loads(mirror)
    assert mirror.splitlines()[:2] == [MARK, registry_line(URL)]


def test_folders_include_the_one_that_containerd_prefers() -> None:
    """Its name has no colon (containerd, remotes/docker/config, hostDirectory)."""
    assert folders("localhost:5001") == ("localhost:5001", "localhost_5001_")
    assert folders("docker.io") == ("docker.io", "docker.io")


@pytest.mark.parametrize(
    ("config", "folders"),
    [
        ('[plugins."io.containerd.cri.v1.images".registry]\nconfig_path = "/a/b"', ("/a/b",)),
        ('[plugins."io.containerd.grpc.v1.cri".registry]\nconfig_path = "/a:/b"', ("/a", "/b")),
        ('[plugins."io.containerd.grpc.v1.cri".registry]\nconfig_path = ""', ()),
        ('[plugins."io.containerd.grpc.v1.cri".registry]\nconfig_path = "/a/../etc"', None),
        ('[plugins."io.containerd.grpc.v1.cri".registry]\nconfig_path = "a"', None),
        ('[plugins."io.containerd.grpc.v1.cri".registry]\nconfig_path = "/a b"', None),
        ("[plugins]", ()),
        ("not toml", ()),
    ],
)
def test_parse_registry_folders_returns_only_configured_folders(
    config: str, folders: tuple[str, ...] | None
) -> None:
    """Only CRI knows which folders it reads by default."""
    assert parse_registry_folders(config) == folders


PROBED = RegistryUrl.parse("http://registry:5403")
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
    assert reads_folder(crictl_node, str(root), PROBED) is True
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
    assert reads_folder(crictl_node, str(root), PROBED) is False
    assert root.exists() == kept
    assert not kept or list(root.iterdir()) == []


def test_reads_folder_is_false_when_a_mirror_for_all_names_answers(tmp_path: Path) -> None:
    root = tmp_path / "certs.d"
    crictl_node = node(tmp_path, crictl(root, f"{PULL}$image: not found", "none"))
    assert reads_folder(crictl_node, str(root), PROBED) is False


def test_reads_folder_is_none_without_crictl(tmp_path: Path) -> None:
    assert reads_folder(node(tmp_path, "exit 127"), str(tmp_path / "certs.d"), PROBED) is None


def test_reads_folder_fails_when_crictl_does_not_reach_cri(tmp_path: Path) -> None:
    root = tmp_path / "certs.d"
    message = "rpc error: code = Unavailable desc = dial unix /run/x.sock: no such file"
    with pytest.raises(NodeUnusable, match=r"x\.sock"):
        reads_folder(node(tmp_path, crictl(root, message, "none")), str(root), PROBED)
    assert not root.exists()


def test_reads_folder_fails_when_it_cannot_create_the_folder(tmp_path: Path) -> None:
    with pytest.raises(NodeUnusable):
        reads_folder(node(tmp_path, "exit 0"), f"{tmp_path}/absent/certs.d", PROBED)


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
    crictl_node = node(tmp_path, crictl(tmp_path, message, str(PROBED)))
    if reached:
        require_registry(crictl_node, PROBED, "/root", by_cri=True)
    else:
        with pytest.raises(RegistryError):
            require_registry(crictl_node, PROBED, "/root", by_cri=True)
