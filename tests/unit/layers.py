"""Layers with every kind of file that an image may have."""

from __future__ import annotations

import io
import subprocess
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path

import attrs

_LONG = "n" * 240
_NET_RAW = bytes.fromhex("0100000200200000000000000000000000000000")
"""The capability of ping, as the kernel stores it."""


@attrs.define
class Layer:
    """Writes a layer as a tar; paths may have any bytes, as surrogate escapes."""

    _buffer: io.BytesIO = attrs.field(factory=io.BytesIO)
    _tar: tarfile.TarFile = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._tar = tarfile.TarFile(fileobj=self._buffer, mode="w", format=tarfile.PAX_FORMAT)

    def add(  # noqa: PLR0913
        self,
        path: str,
        content: bytes = b"",
        *,
        kind: bytes = tarfile.REGTYPE,
        mode: int = 0o644,
        owner: tuple[int, int] = (0, 0),
        target: str = "",
        device: tuple[int, int] = (0, 0),
        xattrs: Mapping[str, bytes] | None = None,
    ) -> Layer:
        """Add an entry."""
        member = tarfile.TarInfo(path)
        member.type, member.mode, member.linkname, member.size = kind, mode, target, len(content)
        (member.uid, member.gid), (member.devmajor, member.devminor) = owner, device
        texts = {k: v.decode("utf-8", "surrogateescape") for k, v in (xattrs or {}).items()}
        member.pax_headers = {f"SCHILY.xattr.{key}": text for key, text in texts.items()}
        self._tar.addfile(member, io.BytesIO(content))
        return self

    def folder(self, path: str, mode: int = 0o755, owner: tuple[int, int] = (0, 0)) -> Layer:
        return self.add(path, kind=tarfile.DIRTYPE, mode=mode, owner=owner)

    def link(self, path: str, target: str, *, hard: bool = False) -> Layer:
        kind = tarfile.LNKTYPE if hard else tarfile.SYMTYPE
        return self.add(path, kind=kind, target=target, mode=0o644 if hard else 0o777)

    @property
    def tar(self) -> bytes:
        """The whole layer."""
        self._tar.close()
        return self._buffer.getvalue()


def odd_layers(unique: str) -> tuple[bytes, ...]:
    """Return layers with all kinds of files, and whiteouts of all kinds; `unique` is in a file."""
    base = Layer().add("unique", unique.encode()).folder("etc", 0o750, (7, 8))
    base.add("etc/setuid", b"#!", mode=0o4755).add("etc/owned", b"x", owner=(1000, 70000))
    base.folder("tmp", 0o1777).add("implied/by/this/file", b"1").add("empty")
    base.link("absolute", "/etc/setuid").link("up", "../../x").link("split\nline", "tar\nget' -> '")
    base.add("new\nline", b"2").add("b\udcff\udcfe", b"3").add("quote'\"\\", b"4")
    base.add(f"long/{_LONG}", b"5").add("/".join(["d" * 100] * 5), b"6")
    base.add("linked", b"7" * 5000, mode=0o640).link("hard", "linked", hard=True)
    base.add("char", kind=tarfile.CHRTYPE, device=(1, 3), mode=0o666)
    base.add("block", kind=tarfile.BLKTYPE, device=(7, 300), mode=0o660, owner=(0, 6))
    base.add("fifo", kind=tarfile.FIFOTYPE, mode=0o600)
    base.add("noted", b"8", xattrs={"user.note": b"some text"})
    base.add("ping", b"9", mode=0o755, xattrs={"security.capability": _NET_RAW})
    for folder in ("removed", "opaque", "becomes-file", "merged"):
        base.folder(folder).add(f"{folder}/lower/file", folder.encode())
    base.add("deleted", b"10").add("again", b"11").add("becomes-folder", b"12")
    middle = Layer().folder("tmp", 0o1770).add(".wh.deleted").add(".wh.removed").add(".wh.again")
    middle.folder("opaque").add("opaque/own", b"13").add("opaque/.wh..wh..opq")
    middle.add("becomes-file", b"14").folder("becomes-folder").add("becomes-folder/file", b"15")
    middle.folder("merged", 0o700).add("merged/.wh.lower").add("merged/upper", b"16")
    middle.link("here", "merged").add("here/through-link", b"17")
    middle.add("hard", b"only this name changes", mode=0o600)
    top = Layer().add("again", b"18").add("merged/lower/new", b"19").add(".wh.linked")
    top.add("pair", b"20").link("pair-2", "pair", hard=True)
    return base.tar, middle.tar, top.tar


def sparse_layer() -> bytes:
    """Return a layer with a file that has holes, as GNU tar writes it; Docker cannot save it."""
    with tempfile.TemporaryDirectory() as folder:
        with (Path(folder) / "holes").open("wb") as file:
            file.write(b"start")
            file.seek(3 << 20)
            file.write(b"end")
        command = ["tar", "--sparse", "--format=posix", "--owner=0", "--group=0", "-c", "holes"]
        return subprocess.run(command, cwd=folder, capture_output=True, check=True).stdout
