"""Lists the files of an image on a node: mounts its snapshot read-only for the time of one exec."""

from __future__ import annotations

import re
import stat

import attrs

from imgload.core.errors import NodeUnusable
from imgload.oci.tree import File, Listed

CLEAN = r"""
if grep -qF " $folder " /proc/mounts; then
    umount -l "$folder"
    "$@" images unmount --rm "$folder" >/dev/null
fi
! grep -qF " $folder " /proc/mounts && rm -rf "$folder"
"""
"""Removes a folder, in which an image may be mounted; `$@` is ctr. Without its lease, containerd
also removes a snapshot of another snapshotter than ctr's default."""
LIST = rf"""
folder=$1 name=$2 snapshotter=$3 platform=$4 hashes=$5 watched=$6
shift 6
for tool in cat find xargs stat umount $hashes; do
    command -v "$tool" >/dev/null || {{ echo "the node has no $tool" >&2; exit 127; }}
done
clean() {{
{CLEAN}
}} </dev/null
trap 'clean "$@"' EXIT
trap 'exit 1' HUP INT TERM
mkdir -m 700 "$folder" || exit
mount="images mount --snapshotter $snapshotter"
"$@" $mount ${{platform:+--platform "$platform"}} "$name" "$folder" </dev/null >&2 || exit
exec 3<&0
{{
    export QUOTING_STYLE=literal
    cd "$folder" &&
    cat /proc/self/uid_map && printf '\0' &&
    find . -print0 && printf '\0' &&
    find . -print0 | xargs -0 stat -c '%f %s %u %g %t %T %i %N' &&
    if [ "$hashes" ]; then find . -type f -print0 | xargs -0 -r "$hashes"; fi && printf complete
}} </dev/null & work=$!
if [ "$watched" ]; then
    {{ while read -r line; do :; done <&3; kill 0; }} >/dev/null 2>&1 & watch=$!
fi
wait "$work"
[ -z "$watched" ] || kill "$watch"
"""
"""Prints the mapping of user IDs, the names of all files, their properties, and perhaps hashes.

With GNU's stat in this style, and with busybox's, only the known name and the known length of a
link's target tell where a line ends. The image is unmounted when the input ends, too: imgload may
be killed. All processes of the exec are then ended; engines start it as a process group."""
_COMPLETE = b"complete"
_ALL_IDS = re.compile(rb"\s*0\s+0\s+4294967295\s*")
_PROPERTIES = re.compile(rb"([0-9a-f]+) (\d+) (\d+) (\d+) ([0-9a-f]+) ([0-9a-f]+) (\d+) ")
_SUM = re.compile(rb"(\\?)([0-9a-f]{64})  ")


@attrs.frozen
class FileList:
    """The files of an image on a node; `has_devices` unless it is in a user namespace."""

    files: list[Listed]
    has_devices: bool


def parse_files(output: bytes, *, hashes: bool) -> FileList:
    """Parse the output of `LIST`; NodeUnusable if it is not as expected."""
    ids, _, rest = output.partition(b"\0")
    names, end, rest = rest.partition(b"\0\0")
    if not end or not rest.endswith(_COMPLETE):
        raise NodeUnusable("the list of its files is incomplete")
    return FileList(_files(names.split(b"\0"), rest, hashes=hashes), bool(_ALL_IDS.fullmatch(ids)))


def _files(names: list[bytes], text: bytes, *, hashes: bool) -> list[Listed]:
    files, at = [], 0
    for name in names:
        match = _PROPERTIES.match(text, at)
        if match is None:
            raise _unexpected(name)
        mode, size, target, at = int(match[1], 16), int(match[2]), b"", match.end()
        if stat.S_ISLNK(mode):
            quote = b"'" if text.startswith(b"'%s' -> '" % name, at) else b""
            start = quote + name + quote + b" -> " + quote
            target = text[at + len(start) : at + len(start) + size]
            line = start + target + quote
        else:
            line = name
        if not text.startswith(line + b"\n", at):
            raise _unexpected(name)
        at += len(line) + 1
        owner, device = (int(match[3]), int(match[4])), (int(match[5], 16), int(match[6], 16))
        files.append(Listed(name[1:], File(mode, owner, size, target, device), int(match[7])))
    for path, file, _ in files if hashes else ():
        if stat.S_ISREG(file.mode):
            match = _SUM.match(text, at)
            if match is None:
                raise _unexpected(path)
            end = match.end() if match[1] else match.end() + len(path)
            at, file.content = text.find(b"\n", end) + 1, match[2]
    return files[1:]  # without the root folder


def _unexpected(name: bytes) -> NodeUnusable:
    return NodeUnusable(f"stat or sha256sum printed an unexpected line for {name!r:.200}")
