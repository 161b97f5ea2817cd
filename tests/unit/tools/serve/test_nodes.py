"""The hosts.toml files on nodes: our server first, and each command restores only its own."""

from __future__ import annotations

import subprocess
import tomllib
from pathlib import Path

import pytest

from imgload.core.errors import NodeUnusable
from imgload.tools.remote_registry.configure import (
    _CONNECT,
    _DISCONNECT,
    _FOLDERS,
    _WRITTEN,
    CONNECT,
    Owner,
)
from imgload.tools.serve.nodes import SERVE, with_first_host

URL = "http://172.18.0.1:4000/v2/0123456789abcdef0123456789abcdef"
OWN = {"capabilities": ["pull", "resolve"], "override_path": True}


@pytest.mark.parametrize(
    "text",
    [
        "",
        'server = "https://ghcr.io"',
        'server = "https://a"\n\n[host."https://b"]\n  capabilities = ["pull"]\n',
        '# no server\n[host."https://b"]\n[host."https://b".header]\n  x = ["y"]\n',
        'ca = "/a.pem"\n  [host."https://b"]\n    skip_verify = true\n',
    ],
)
def test_our_server_is_the_first_host(text: str) -> None:
    document = tomllib.loads(with_first_host(text, URL))
    assert next(iter(document["host"])) == URL
    assert document["host"].pop(URL) == OWN
    if not document["host"]:
        del document["host"]
    assert document == tomllib.loads(text)


@pytest.mark.parametrize(
    "text", ["server =", "client = [\n[1, 2]\n]\n", f'[host."{URL}"]\n', 'host = "x"\n', "[" * 9999]
)
def test_a_file_that_cannot_be_edited_is_refused(text: str) -> None:
    with pytest.raises(NodeUnusable):
        with_first_host(text, URL)


def run(script: str, root: Path, owner: Owner, *words: str) -> str:
    fixed = (str(root), _WRITTEN, owner.mark, owner.backup, owner.umask)
    argv = ["sh", "-c", _FOLDERS + script, "imgload", *fixed, *words]
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


def write(root: Path, owner: Owner) -> None:
    text = f"{owner.mark}\n# registry: http://reg:1\n"
    run(_CONNECT, root, owner, *("docker.io", "docker.io", text))


def restore(root: Path, owner: Owner) -> list[str]:
    return run(_DISCONNECT, root, owner, "").splitlines()


def files(root: Path) -> dict[str, str]:
    return {str(p.relative_to(root)): p.read_text() for p in root.rglob("*") if p.is_file()}


@pytest.mark.parametrize("first", [CONNECT, SERVE])
@pytest.mark.parametrize("ends_first", [CONNECT, SERVE])
@pytest.mark.parametrize("users", ["", 'server = "https://mine"\n'])
def test_connect_and_serve_end_in_any_order(
    tmp_path: Path, first: Owner, ends_first: Owner, users: str
) -> None:
    """The user's file is restored, and created folders are removed."""
    root = tmp_path / "certs.d"
    if users:
        (root / "docker.io").mkdir(parents=True)
        (root / "docker.io" / "hosts.toml").write_text(users)
    before = files(root)
    second = SERVE if first is CONNECT else CONNECT
    write(root, first)
    write(root, second)
    kept = restore(root, ends_first)
    assert any(line.startswith("kept ") for line in kept)
    last = SERVE if ends_first is CONNECT else CONNECT
    assert not any(line.startswith("kept ") for line in restore(root, last))
    assert files(root) == before
    assert root.exists() == bool(users)


def test_only_root_can_read_the_secret_path(tmp_path: Path) -> None:
    root = tmp_path / "certs.d"
    write(root, SERVE)
    assert (root / "docker.io" / "hosts.toml").stat().st_mode & 0o077 == 0
