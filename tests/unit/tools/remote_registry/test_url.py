"""Registry URLs and names, and the hosts.toml files made of them."""

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgload.clusters.nodes.containerd import parse_registry_folders
from imgload.core.errors import ImgloadError, UsageError
from imgload.oci.reference import Reference
from imgload.tools.remote_registry.config import MARK, folders, hosts_toml, registry_line
from imgload.tools.remote_registry.url import RegistryUrl, registry_names, repositories

URL = RegistryUrl.parse("http://registry:5000")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("http://registry:5000", "http://registry:5000"),
        ("https://registry.example/", "https://registry.example"),
        ("http://[fd00::1]:5000", "http://[fd00::1]:5000"),
    ],
)
def test_parse_accepts_hosts_with_and_without_a_port(text: str, expected: str) -> None:
    """A trailing slash is not a path."""
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
    ("name", "expected"),
    [
        ("app:dev", ("app", "library/app")),
        ("me/app:dev", ("me/app",)),
        ("ghcr.io/me/app:dev", ("me/app",)),
        ("localhost:5001/app:dev", ("app",)),
    ],
)
def test_repositories_include_library_for_docker_hubs_official_images(
    name: str, expected: tuple[str, ...]
) -> None:
    assert repositories(Reference.parse(name)) == expected


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
