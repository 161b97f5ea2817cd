"""The files that the layers of an image describe (OCI image spec, layer.md), and the differences.

Like containerd (``pkg/archive/tar.go``), it ignores the entry of the root folder, follows a layer's
own symbolic links in the paths of its entries, and creates folders that have no entry.
"""

from __future__ import annotations

import hashlib
import posixpath
import stat
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import attrs

from imgload.core.errors import ArchiveInvalid
from imgload.oci.tar import MAX_PATH, Body, Header, read_headers

MAX_FILES = 1_000_000
"""Entries of one layer, and files of one image: some hundred bytes of memory each."""
_KINDS = {b"5": stat.S_IFDIR, b"2": stat.S_IFLNK, b"3": stat.S_IFCHR, b"4": stat.S_IFBLK}
_KINDS |= {b"6": stat.S_IFIFO, b"1": 0} | dict.fromkeys((b"0", b"\0", b"7"), stat.S_IFREG)
_SPARSE_SIZES = (b"GNU.sparse.realsize", b"GNU.sparse.size")
_WHITEOUT, _OPAQUE = b".wh.", b".wh..wh..opq"
_PERMISSIONS = 0o7777
_MOST_LINKS = 255
_SHOWN = 200
"""Characters of a path in messages."""
_NAMES = {stat.S_IFDIR: "a folder", stat.S_IFLNK: "a symbolic link", stat.S_IFREG: "a file"}
_DEVICES = (stat.S_IFCHR, stat.S_IFBLK)


class Entry(NamedTuple):
    """An entry of a layer; `mode` has the type as well, 0 for a hard link to `target`.

    `device` has the major and minor number, and `content` the sha256 of a file that was hashed.
    """

    path: bytes
    mode: int
    size: int
    owner: tuple[int, int]
    target: bytes = b""
    device: tuple[int, int] = (0, 0)
    content: bytes = b""


@attrs.define(eq=False)
class File:
    """A file of any type, with the fields of its entry; `layer` is the last one that has it."""

    mode: int = stat.S_IFDIR | 0o755
    owner: tuple[int, int] = (0, 0)
    size: int = 0
    target: bytes = b""
    device: tuple[int, int] = (0, 0)
    content: bytes = b""
    layer: int = 0
    children: dict[bytes, File] = attrs.field(factory=dict, repr=False)

    @property
    def kind(self) -> int:
        return stat.S_IFMT(self.mode)


def read_layer(
    chunks: Iterable[bytes] | Iterable[memoryview], *, hashes: bool = False
) -> list[Entry]:
    """Return the entries of a layer's uncompressed tar; ArchiveInvalid if it is damaged.

    With `hashes`, the content of files is hashed, except that of sparse ones.
    """
    entries = []
    for head, body in read_headers(chunks, most=MAX_FILES, is_layer=True):
        if head.kind not in _KINDS:
            raise ArchiveInvalid(f"a layer has an entry of the unknown type {head.kind!r}")
        entries.append(_entry(head, body, hashes=hashes))
    return entries


def _entry(head: Header, body: Body, *, hashes: bool) -> Entry:
    mode = _KINDS[head.kind]
    path = head.extended.get(b"GNU.sparse.name") or head.path
    sparse = next((key for key in _SPARSE_SIZES if head.extended.get(key)), b"")
    if head.kind == b"\0" and path.endswith(b"/"):
        mode = stat.S_IFDIR
    if len(path) > MAX_PATH or b"\0" in path:
        raise ArchiveInvalid(f"a layer has the invalid path {path!r:.200}")
    content = b""
    if hashes and mode == stat.S_IFREG and not sparse:
        hasher = hashlib.sha256()
        for piece in body:
            hasher.update(piece)
        content = hasher.hexdigest().encode()
    return Entry(
        path,
        mode | head.number(100, 108) & _PERMISSIONS,
        head.number(124, 136, sparse) if sparse else head.size,
        (head.number(108, 116, b"uid"), head.number(116, 124, b"gid")),
        head.target if mode in {0, stat.S_IFLNK} else b"",
        (head.number(329, 337), head.number(337, 345)) if mode in _DEVICES else (0, 0),
        content,
    )


class Tree:
    """The files of an image whose layers are applied one after the other, bottom up."""

    def __init__(self) -> None:
        self.root = File()
        self._layer = 0
        self._added = 0

    def apply(self, entries: Iterable[Entry]) -> None:
        """Apply a layer; ArchiveInvalid if containerd could not unpack it."""
        self._layer += 1
        for entry in entries:
            *parents, name = _parts(posixpath.normpath(b"/" + entry.path.lstrip(b"/")))
            if name:
                self._apply(entry, self._folder(parents), name)

    def _apply(self, entry: Entry, folder: File, name: bytes) -> None:
        if name == _OPAQUE:
            self._hide_lower(folder)
        elif name.startswith(_WHITEOUT):
            hidden = folder.children.get(name.removeprefix(_WHITEOUT))
            if hidden and hidden.layer == self._layer:
                self._hide_lower(hidden)
            elif hidden:
                del folder.children[name.removeprefix(_WHITEOUT)]
        elif stat.S_IFMT(entry.mode):
            file = folder.children.get(name)
            if file is None or file.kind != stat.S_IFDIR or not stat.S_ISDIR(entry.mode):
                file = self._add(folder, name, File())
            file.mode, file.owner, file.size = entry.mode, entry.owner, entry.size
            file.target, file.device, file.content = entry.target, entry.device, entry.content
            file.layer = self._layer
        else:
            *parents, base = _parts(posixpath.normpath(b"/" + entry.target.lstrip(b"/")))
            linked = self._folder(parents).children.get(base)
            if linked is None or linked.kind == stat.S_IFDIR:
                raise ArchiveInvalid(f"a layer has a hard link to no file: {entry.path!r:.200}")
            self._add(folder, name, linked)
            linked.mode, linked.owner = linked.kind | entry.mode, entry.owner

    def _add(self, folder: File, name: bytes, file: File) -> File:
        self._added += 1
        if self._added > MAX_FILES:
            raise ArchiveInvalid(f"the layers have more than {MAX_FILES} files")
        folder.children[name] = file
        file.layer = self._layer
        return file

    def _folder(self, parts: list[bytes]) -> File:
        """Return the folder with a path, which is created, also in place of a file.

        Links of lower layers are not followed: overlayfs unpacks each layer into its own folder.
        """
        waiting, trail, links = parts[::-1], [self.root], 0
        while waiting:
            part = waiting.pop()
            child = trail[-1].children.get(part)
            if part == b".." and len(trail) > 1:
                trail.pop()
            if part in {b"", b".", b".."}:
                continue
            if child and child.kind == stat.S_IFLNK and child.layer == self._layer:
                links += 1
                if links > _MOST_LINKS:
                    raise ArchiveInvalid(f"the symbolic links of a layer form a cycle: {part!r}")
                trail = trail[:1] if child.target.startswith(b"/") else trail
                waiting += reversed(_parts(child.target))
                continue
            if child is None or child.kind != stat.S_IFDIR:
                child = self._add(trail[-1], part, File())
            child.layer = self._layer
            trail.append(child)
        return trail[-1]

    def _hide_lower(self, folder: File) -> None:
        """Remove the files of lower layers below a folder; those of the same layer stay."""
        waiting = [folder]
        while waiting:
            kept = waiting.pop()
            own = {n: f for n, f in kept.children.items() if f.layer == self._layer}
            kept.children = own
            waiting += own.values()

    def files(self) -> Iterator[tuple[bytes, File]]:
        """Yield every file with its path, such as ``/etc/passwd``, but the root folder."""
        waiting = [(b"", self.root)]
        while waiting:
            path, folder = waiting.pop()
            for name, child in folder.children.items():
                yield b"%s/%s" % (path, name), child
                if child.children:
                    waiting.append((b"%s/%s" % (path, name), child))


def _parts(path: bytes) -> list[bytes]:
    return path.split(b"/")[path.startswith(b"/") :]


class Listed(NamedTuple):
    """A file on a node; `inode` is that of all its hard links."""

    path: bytes
    file: File
    inode: int


def differences(tree: Tree, listed: Iterable[Listed], *, devices: bool = True) -> Iterator[str]:
    """Yield how the files of a node differ from a tree: a path and the reason.

    Without `devices`, the node may lack device files: in a user namespace none can be created.
    """
    expected, inodes = dict(tree.files()), dict[int, int]()
    for path, file, inode in listed:
        wanted = expected.pop(path, None)
        if wanted is None:
            yield f"{shown(path)}: is on the node, but not in the image"
        elif reason := "; ".join(_changes(wanted, file)):
            yield f"{shown(path)}: {reason}"
        elif inodes.setdefault(id(wanted), inode) != inode:
            yield f"{shown(path)}: is not the hard link that it is in the image"
    for path, wanted in expected.items():
        if devices or wanted.kind not in _DEVICES:
            yield f"{shown(path)}: is missing on the node"


def _changes(wanted: File, file: File) -> Iterator[str]:
    if file.kind != wanted.kind:
        names = (_NAMES.get(kind, "a special file") for kind in (file.kind, wanted.kind))
        yield "is {} on the node, and {} in the image".format(*names)
        return
    if file.kind == stat.S_IFREG and file.size != wanted.size:
        yield f"has {file.size} bytes, not {wanted.size}"
    elif file.content and wanted.content and file.content != wanted.content:
        yield "has other content"
    if file.kind != stat.S_IFLNK and file.mode != wanted.mode:
        actual, mode = (each.mode & _PERMISSIONS for each in (file, wanted))
        yield f"has mode {actual:04o}, not {mode:04o}"
    if file.owner != wanted.owner:
        yield "belongs to {}:{}, not {}:{}".format(*file.owner, *wanted.owner)
    if file.target != wanted.target:
        yield f"leads to {shown(file.target)}, not {shown(wanted.target)}"
    if file.device != wanted.device:
        yield "is device {}:{}, not {}:{}".format(*file.device, *wanted.device)


def shown(path: bytes) -> str:
    """Return a path as text, with escapes and without its middle if it is long."""
    text = ascii(path)[2:-1]
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN // 2]}...{text[-_SHOWN // 2 :]}"
