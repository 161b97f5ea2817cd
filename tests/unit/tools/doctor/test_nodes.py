"""Parsing the output of nodes, and their proxies."""

from __future__ import annotations

import pytest

from imgload.clusters.nodes.survey import parse_space
from imgload.tools.doctor.nodes import (
    check_proxies,
    is_excepted,
    parse_mirrors,
    parse_plugins,
    parse_proxies,
)

PROXY = "http://proxy.example:3128"
DF = """\
Filesystem           1024-blocks    Used Available Capacity Mounted on
/dev/a long name     264212084  39606452  66784460  37% /var
"""
PLUGINS = """\
TYPE                            ID           PLATFORMS      STATUS
io.containerd.snapshotter.v1    devmapper    linux/amd64    skip
io.containerd.grpc.v1           cri          -              ok
"""


def test_parse_space_returns_total_and_free_bytes() -> None:
    """None for an error message."""
    assert parse_space(DF) == (264212084 * 1024, 66784460 * 1024)
    assert parse_space("df: no such file\n") is None


def test_parse_plugins_returns_states() -> None:
    """By type and name."""
    found = parse_plugins(PLUGINS)
    assert found["io.containerd.grpc.v1", "cri"] == "ok"
    assert found["io.containerd.snapshotter.v1", "devmapper"] == "skip"
    assert parse_plugins("") == {}


def test_proxies_and_mirrors_are_parsed() -> None:
    """Variables in either case; an empty one is ignored."""
    assert parse_proxies("HTTP_PROXY=a=b\nno_proxy=c\nHTTPS_PROXY=\n") == {
        "http_proxy": "a=b",
        "no_proxy": "c",
    }
    text = 'server = "x"\n[host."http://reg:5000"]\n  [host."http://reg:5000".header]\n[host."a"]\n'
    assert parse_mirrors(text) == ("reg:5000", "a")


@pytest.mark.parametrize(
    ("host", "no_proxy"),
    [
        ("registry:5000", "registry"),
        ("registry:5000", "a, registry:5000 ,b"),
        ("registry.dev", ".dev"),
        ("registry.dev", "dev"),
        ("registry.dev", "*.dev"),
        ("10.1.2.3:5000", "10.0.0.0/8"),
        ("anything", "*"),
        ("localhost:5000", ""),
        ("127.0.0.1:5000", ""),
    ],
)
def test_excepted_hosts_bypass_the_proxy(host: str, no_proxy: str) -> None:
    """By name, subdomain, network or ``*``; loopback always."""
    assert is_excepted(host, no_proxy)


@pytest.mark.parametrize(
    ("host", "no_proxy"),
    [
        ("registry:5000", ""),
        ("registry:5000", "other"),
        ("registry:5000", "registry:80"),
        ("notdev", "dev"),
        ("11.1.2.3", "10.0.0.0/8"),
        ("registry", "10.0.0.0/8, /, bad/net"),
    ],
)
def test_other_hosts_use_the_proxy(host: str, no_proxy: str) -> None:
    assert not is_excepted(host, no_proxy)


@pytest.mark.parametrize(
    ("proxies", "status", "words"),
    [
        ({}, None, ""),
        ({"no_proxy": "x"}, None, ""),
        ({"http_proxy": PROXY}, "warning", "for pulls from registry:5000"),
        ({"https_proxy": PROXY, "no_proxy": "registry"}, "info", "pulls through a proxy"),
        ({"http_proxy": "http://127.0.0.1:3128"}, "warning", "is the node itself"),
        ({"http_proxy": "localhost:3128"}, "warning", "is the node itself"),
    ],
)
def test_check_proxies_warns_about_pulls_that_fail(
    proxies: dict[str, str], status: str | None, words: str
) -> None:
    """No finding without a proxy."""
    found = list(check_proxies("n", proxies, ["registry:5000"]))
    assert [f.status for f in found] == ([status] if status else [])
    assert words in "".join(f.message for f in found)
