"""Parsing the output of nodes."""

from __future__ import annotations

from imgload.tools.doctor.nodes import parse_mirrors, parse_plugins, parse_proxies, parse_space

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
