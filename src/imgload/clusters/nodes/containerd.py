"""Where containerd (1.6 to 2.x) is on a node, the commands of ctr and crictl, and their parsers."""

from __future__ import annotations

import json
import re
import secrets
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple, TypeVar

import attrs

from imgload.clusters.nodes.batch import NOT_FOUND, Output, with_reason
from imgload.core.errors import ArchiveInvalid, NodeUnusable, UsageError, reason
from imgload.oci.digest import Digest
from imgload.oci.document import dig, load_json

Command = tuple[str, ...]
T = TypeVar("T", bound=Hashable)
CTR = ("ctr", "-n", "k8s.io")
CONTENT = (*CTR, "content", "ls")
NOT_PERMITTED = 126
_NOT_CONNECTED = re.compile(
    "validate service connection|connect endpoint|code = Unimplemented|dial unix"
)
"""crictl on a socket without a server, or on a containerd without its CRI plugin (cri-tools
``cmd/crictl/main.go``)."""
CRI_HINT = "check that containerd runs its CRI plugin, on the node: ctr plugins ls -d id==cri"
DEFAULT_SNAPSHOTTER = "overlayfs"
DEFAULT_REGISTRY_FOLDER = "/etc/containerd/certs.d"
CRI_RECORD = "sha256:"
"""Prefix of CRI's own records: one for each image, named after its ID."""
DANGLING = "moby-dangling@"
"""Prefix of Docker's own records, before the digest of an image that has no other name (moby
daemon/containerd/image.go)."""
CRI_LABEL = "io.cri-containerd.image"
"""``managed`` on each record that CRI has registered (containerd ``internal/cri/labels``)."""
_IMAGES = "io.containerd.cri.v1.images"
CRI_PLUGINS = {4: _IMAGES, 3: _IMAGES, 2: "io.containerd.grpc.v1.cri", 1: "cri"}
"""The plugin that configures CRI's registries, by the version of the configuration."""

_RUNTIME_PLUGINS = ("io.containerd.cri.v1.runtime", "io.containerd.grpc.v1.cri", "cri")
"""The plugins that configure the runtimes of pods, in versions 3 and 4, 2, and 1."""
_IDENTIFIER = re.compile(r"[A-Za-z0-9]+(?:[._-][A-Za-z0-9]+)*", re.ASCII)
"""containerd ``pkg/identifiers``."""
_FOLDER = re.compile(r"(?:/(?!\.\.?(?:/|$))[\w.-]+)+", re.ASCII)
_VERSION = re.compile(r"Server:\s+Version:\s+v?(\d{1,9})\.(\d{1,9})")
_RECORD = re.compile(r"(\S.*?)\s+\S+/\S+\s+(sha256:[0-9a-f]{64})\s(.*)")
"""A row of ``ctr images ls``: REF TYPE DIGEST …; containerd accepts names with spaces."""
_SUM = "(sha256:[0-9a-f]{64}|sha384:[0-9a-f]{96}|sha512:[0-9a-f]{128})"
_REFERENCE = re.compile(rf"containerd\.io/gc\.ref\.content\.([^=,\s]+)={_SUM}")
"""A label of a manifest or index: ``config``, ``l.N`` for layers, ``m.N`` for manifests."""
_UNCOMPRESSED = re.compile(rf"containerd\.io/uncompressed={_SUM}")
"""A label of a layer that containerd has unpacked: its diff ID."""
_LAYER_KEY = re.compile(r"l\.(\d{1,4})")
LOADED_KEY = "imgload.loaded/"
"""Prefix of the label that imgload puts on the config of an image in the content store. A label on
the record would be lost when its name moves to the next build, which is when it is needed."""
_LOADED_LABEL = re.compile(
    rf"{re.escape(LOADED_KEY)}([^=,\s]{{1,1000}})=(\d{{1,11}}(?:\.\d{{1,3}})?)(?=,|\s|$)"
)
_PINNED = "io.cri-containerd.pinned"
"""``pinned`` on each record whose image CRI reports as pinned: the kubelet's garbage collection
keeps it (containerd ``internal/cri/labels``; from 1.7 on)."""
PINS_SINCE = (1, 7)
_OWN_PIN = "imgload/pinned"
"""``pinned`` on each record that imgload pinned, so that `prune` removes no other pin."""
_PIN = """
name=$1 pinned=$2 label=$3 own=$4
shift 4
[ -z "$("$@" images ls -q "$pinned")" ] || exit 0
exec "$@" images label "$name" "$label" ${own:+"$own"} >/dev/null
"""
_UNPIN = """
name=$1 pinned=$2 label=$3 own=$4
shift 4
[ -n "$("$@" images ls -q "$pinned")" ] || exit 0
exec "$@" images label "$name" "$label" "$own" >/dev/null
"""
_RETAG = """
existing=$1 is=$2 name=$3 pinned=$4 label=$5 pinned_by_us=$6 own=$7
shift 7
[ -n "$("$@" images ls -q "$is")" ] || exit 0
was=$("$@" images ls -q "$pinned") was_ours=$("$@" images ls -q "$pinned_by_us")
"$@" images tag --force -- "$existing" "$name" >/dev/null || exit
exec "$@" images label "$name" "$label=${was:+pinned}" "$own=${was_ours:+pinned}" >/dev/null
"""
_USUAL_SOCKET = "/run/containerd/containerd.sock"
_K3S_SOCKET = "/run/k3s/containerd/containerd.sock"
_SOCKETS = (
    _K3S_SOCKET,
    _USUAL_SOCKET,
    "/run/k0s/containerd.sock",
    "/var/snap/microk8s/common/run/containerd.sock",
)
"""Of k3s and RKE2, kind and minikube, k0s, and MicroK8s."""
FIND = r"""
option() {
    tr '\0' '\n' <"$process/cmdline" 2>/dev/null | while read -r word; do
        case $last in -$1 | --$1) echo "$word"; break ;; esac
        case $word in -$1=* | --$1=*) echo "${word#*=}"; break ;; esac
        last=$word
    done
}
listens() {
    real=$(readlink -f "$wanted")
    while read -r _ _ _ _ _ _ inode path; do
        case $path in "$wanted" | "$real") ;; *) continue ;; esac
        ls -l "$process/fd" 2>/dev/null | grep -qF "socket:[$inode]" && return 0
    done </proc/net/unix
    return 1
}
find_containerd() {
    for process in $(grep -lx containerd /proc/[0-9]*/comm 2>/dev/null); do
        process=${process%/comm}
        [ "$process/ns/mnt" -ef /proc/self/ns/mnt ] || continue
        file=$(option config) file=${file:-$(option c)}
        if [ "$wanted" ]; then
            if listens; then return 0; else continue; fi
        fi
        parent=$(sed -n 's/^PPid:[^0-9]*//p' "$process/status" 2>/dev/null)
        parent=$(cat "/proc/$parent/comm" 2>/dev/null)
        case $parent:$file in dockerd:* | *:*/docker/*) file= ;; *) return 0 ;; esac
    done
    return 1
}
"""
"""Finds the containerd that runs, and its options: the one that listens at `wanted`, or if that is
empty, one that does not run in a pod, and that dockerd did not start for itself."""
_DUMP = (
    FIND
    + r"""
wanted=$1
shift
find_containerd && [ "$file" ] && case $1 in
    cat) exec cat "$file" ;;
    *) exec "$1" --config "$file" config dump ;;
esac
exec "$@"
"""
)
"""Prints the configuration of the containerd that runs, which may have been given another file than
the usual one."""
_LOOK = (
    FIND
    + f"""
wanted=$1
if find_containerd; then
    exe=$(readlink "$process/exe")
    echo "exe $exe"
    echo "file $file"
    echo "root $(option root)"
    address=$(option address) address=${{address:-$(option a)}}
    echo "address $address"
fi
for socket in {" ".join(_SOCKETS)}; do
    if [ -S $socket ]; then echo "socket $socket"; fi
done
for name in ctr crictl k3s k0s microk8s.ctr; do
    if command -v $name >/dev/null; then echo "program $name"; continue; fi
    for path in "${{exe%/*}}/$name" /var/lib/rancher/rke2/bin/$name /snap/bin/$name; do
        if [ -x "$path" ]; then echo "program $name $path"; break; fi
    done
done
echo config
head -c 262144 "${{file:-/etc/containerd/config.toml}}" 2>/dev/null
:
"""
)
LOOK = ("sh", "-c", _LOOK)
"""The command that lists the running containerd with its options and configuration, and the
sockets and programs in a container. The name of the shell and the path of a socket may follow, to
list only the containerd that listens there."""

_FIND_LOG = (
    FIND
    + r"""
wanted=$2
if [ -f "$1/containerd.log" ]; then echo "file $1/containerd.log"; exit; fi
if journalctl -q -u containerd -n 1 2>/dev/null | grep -q .; then echo journal; exit; fi
find_containerd || exit
file=$(readlink "$process/fd/2")
if [ -f "$file" ]; then echo "file $file"; exit; fi
case $file in
    pipe:* | /dev/pts/*) [ "$process/fd/2" -ef /proc/1/fd/2 ] && echo container ;;
esac
"""
)
"""Prints where containerd logs: k3s has a file, systemd the journal, and otherwise its stderr may
be a file, or that of the container's first process."""
_LOG_FILE = re.compile(r"file (/[\w./-]{1,200})")


@attrs.frozen
class Containerd:
    """Where containerd is on a node.

    Args:
        programs: the command lines of programs, where they are not just their names.
        config: the command that prints containerd's configuration.
        root: the folder of its content.
        socket: where it listens. crictl connects to it as well, whatever /etc/crictl.yaml names:
            only the CRI of this containerd can report whether it knows this containerd's images.
        selected: the same if the user selected it; otherwise empty.
        namespace: that of the images.
        snapshotter: the one that unpacks them; empty for CRI's, which its configuration names.
        cri: the address of CRI, if it is not containerd's own; otherwise empty.

    """

    programs: Mapping[str, Command] = attrs.field(factory=dict, hash=False)
    config: Command = ("containerd", "config", "dump")
    root: str = "/var/lib/containerd"
    socket: str = _USUAL_SOCKET
    selected: str = ""
    namespace: str = CTR[2]
    snapshotter: str = ""
    cri: str = ""

    def resolve_command(self, command: Sequence[str]) -> Command:
        """Return the command line of a command on this node."""
        program, *arguments = command
        words = self.programs.get(program, (program,))
        if program == "crictl":
            return crictl_command(words, self.cri or f"unix://{self.socket}", arguments)
        if tuple(command[: len(CTR)]) == CTR:
            arguments[1] = self.namespace
        return (*words, *arguments)

    @property
    def dump(self) -> Command:
        """The command that prints the configuration with which containerd runs."""
        return ("sh", "-c", _DUMP, "imgload", self.selected, *self.config)

    @property
    def start(self) -> Command:
        """The command whose output changes with each start of containerd."""
        return ("stat", "-c", "%i %z", self.socket)

    @property
    def find_log(self) -> Command:
        return ("sh", "-c", _FIND_LOG, "imgload", self.root, self.selected)

    @property
    def free(self) -> Command:
        return ("df", "-Pk", self.root)


CONTAINERD = Containerd()
K3S = Containerd(
    programs={"ctr": ("ctr", "--address", _K3S_SOCKET)},
    config=("cat", "/var/lib/rancher/k3s/agent/etc/containerd/config.toml"),
    root="/var/lib/rancher/k3s/agent/containerd",
    socket=_K3S_SOCKET,
)
"""k3s contains containerd and its programs (k3s, pkg/ctr/main.go and pkg/agent/containerd)."""


def log_command(found: str, on_node: Callable[..., str], of_node: str) -> str:
    """Return the command line that prints containerd's log, from the output of `find_log`.

    `on_node` returns the one that runs a command on the node, and `of_node` prints the output of
    the node's first process.
    """
    place = found.partition("\n")[0]
    if file := _LOG_FILE.fullmatch(place):
        return on_node("tail", "-n", "50", file[1])
    if place == "journal":
        return on_node("journalctl", "-u", "containerd", "--no-pager", "-n", "50")
    return of_node if place == "container" else ""


def require_socket(path: str) -> str:
    """Return the path of a socket on a node, without ``unix://``; UsageError if it is invalid."""
    plain = path.removeprefix("unix://")
    if not _FOLDER.fullmatch(plain):
        raise UsageError(
            f"{path!r:.200} is not the address of a containerd: an absolute path on the node, of"
            " letters, digits, dots, dashes and underscores",
            hint="use, for example: --address /run/containerd/containerd.sock",
        )
    return plain


def parse_look(text: str, selected: str = "") -> Containerd:
    """Parse the output of `LOOK`; NodeUnusable without a containerd or a program to control it.

    `selected` is the socket at which it must listen, if the user selected one.
    """
    listing, _, config = f"\n{text}".partition("\nconfig\n")
    lines = [(key, value) for key, _, value in (x.partition(" ") for x in listing.splitlines())]
    running = {key: value for key, value in lines if key in {"exe", "file", "root", "address"}}
    configured = (_settings(config) if running else None) or {}
    known = [socket for socket in _SOCKETS if ("socket", socket) in lines]
    if selected and not running:
        others = f"existing sockets: {', '.join(known) or 'none of the usual ones'}"
        raise NodeUnusable(
            f"no containerd listens at {selected} there; {others}",
            hint="list the sockets there: grep -a containerd /proc/net/unix; or omit --address",
        )
    usual = [*known, *([_USUAL_SOCKET] if running else [])]
    socket = selected or _first_path(
        running.get("address"), dig(configured, "grpc", "address"), *usual
    )
    if socket is None:
        raise NodeUnusable(
            "no containerd runs there: no process of that name, and none of the sockets"
            f" {', '.join(_SOCKETS)}",
            hint="name a container that is a node: see imgload clusters",
        )
    runtime = K3S if socket == _K3S_SOCKET else CONTAINERD
    config_command = runtime.config
    exe, file = _first_path(running.get("exe")), _first_path(running.get("file"))
    if exe and exe.endswith("/containerd"):
        config_command = (exe, "config", "dump")
    elif file:  # the containerd of k3s is one of many programs in one file
        config_command = ("cat", file)
    programs = [value.partition(" ") for key, value in lines if key == "program"]
    found = {name: path or name for name, _, path in programs}
    return Containerd(
        programs=dict(_programs(found, socket, selected)),
        config=config_command,
        root=_first_path(running.get("root"), configured.get("root")) or runtime.root,
        socket=socket,
        selected=selected,
    )


def parse_docker_store(text: str, cri: str) -> Containerd | None:
    """Return the containerd in which Docker keeps its images, from the JSON of ``docker info``.

    None if it does not. `cri` is the address of the CRI for this Docker. Docker before 27 does not
    report the address of its containerd (moby api/types/system/info.go, ContainerdInfo).
    """
    info = None
    with suppress(ValueError):
        info = load_json(text)
    if "io.containerd.snapshotter.v1" not in str(dig(info, "DriverStatus")):
        return None
    names = (dig(info, "Driver"), dig(info, "Containerd", "Namespaces", "Containers") or "moby")
    socket = _first_path(dig(info, "Containerd", "Address"), _USUAL_SOCKET) or _USUAL_SOCKET
    snapshotter, namespace = (str(name) for name in names)
    if not (_IDENTIFIER.fullmatch(snapshotter) and _IDENTIFIER.fullmatch(namespace)):
        raise NodeUnusable(f"docker info names no usable snapshotter or namespace: {names!r:.200}")
    is_usual = socket == _USUAL_SOCKET
    return Containerd(
        programs={} if is_usual else {"ctr": ("ctr", "--address", socket)},
        socket=socket,
        selected="" if is_usual else socket,
        namespace=namespace,
        snapshotter=snapshotter,
        cri=cri,
    )


def _programs(
    found: Mapping[str, str], socket: str, selected: str
) -> Iterator[tuple[str, Command]]:
    """Yield the command lines of ctr and crictl, if they are not just their names."""
    wrappers = {"k3s": ("k3s", "ctr"), "k0s": ("k0s", "ctr"), "microk8s.ctr": ("microk8s.ctr",)}
    wrapper = next((name for name in wrappers if name in found), None)
    if "ctr" in found and (socket != _USUAL_SOCKET or found["ctr"] != "ctr"):
        yield "ctr", (found["ctr"], "--address", socket)
    elif "ctr" not in found and wrapper:
        _, *subcommand = wrappers[wrapper]
        address = ("--address", selected) if selected else ()
        yield "ctr", (found[wrapper], *subcommand, *address)
    elif "ctr" not in found:
        raise NodeUnusable(
            "containerd runs there, but there is no ctr to control it",
            hint="put ctr from containerd's release on the PATH there",
        )
    if "crictl" in found and found["crictl"] != "crictl":
        yield "crictl", (found["crictl"],)
    elif "crictl" not in found and "k3s" in found:
        yield "crictl", ("k3s", "crictl")


def _first_path(*values: object) -> str | None:
    """Return the first value that is an absolute path of plain characters."""
    paths = (value for value in values if isinstance(value, str) and _FOLDER.fullmatch(value))
    return next(paths, None)


def images_command(names: Sequence[str], targets: Sequence[Digest] = ()) -> Command:
    """Return the command that lists the image records with some names or target digests.

    Without a filter it would list all, and ctr computes the size of every image: 2 ms each.
    """
    by_name = (f'name=="{name}"' for name in names or ("none",))
    by_target = (f'target.digest=="{target}"' for target in targets)
    return (*CTR, "images", "ls", *by_name, *by_target)


def all_images() -> list[Command]:
    """Return the commands that list all records: first those with names, then CRI's by image ID.

    CRI has one for each image; listing only its name avoids computing the size again.
    """
    others = ""  # all names that do not start with CRI_RECORD: Go's expressions have no lookahead
    for character in reversed(CRI_RECORD):
        others = f"(?:$|[^{character}]{f'|{character}{others}' if others else ''})"
    return [
        (*CTR, "images", "ls", f"name~=/^{others}/"),
        (*CTR, "images", "ls", "-q", f"name~=/^{CRI_RECORD}/"),
    ]


def points_to(name: str, *targets: Digest) -> str:
    """Return ctr's filter for the record of a name (any string) if it has one of some targets."""
    return f"name=={quoted(name)},{any_target(targets)}"


def any_target(targets: Sequence[Digest]) -> str:
    """Return ctr's filter for records with one of some targets."""
    return f"target.digest~=/^({'|'.join(map(str, targets))})$/"


def quoted(name: str) -> str:
    """Return a name as a Go string literal, for a filter of ctr."""
    return json.dumps(name, ensure_ascii=False)


def content_command(digest: Digest) -> Command:
    return (*CTR, "content", "get", str(digest))


def snapshots_command(snapshotter: str, *action: str) -> Command:
    """Return the command that lists a snapshotter's snapshots, or does something else with them."""
    return (*CTR, "snapshots", "--snapshotter", snapshotter, *(action or ("ls",)))


def import_command(snapshotter: str, platform: str, *, local: bool) -> Command:
    """Return the command that imports an OCI layout tar from its standard input.

    ctr's own default snapshotter may not be CRI's (kind #2543). `local` bypasses the transfer
    service, which is slower, and on 1.7 leaves images that CRI does not see (containerd #9039).
    containerd 1.6 has no such option, and 1.7 bypasses it by default.
    """
    options = (f"--snapshotter={snapshotter}", f"--platform={platform}")
    return (*CTR, "images", "import", *(["--local"] if local else []), *options, "-")


def pull_command(snapshotter: str, platform: str, *, version: tuple[int, int]) -> Command:
    """Return the command that pulls an image; ``--hosts-dir`` and the name follow."""
    has_service = has_pull_service(snapshotter, version=version)
    local = () if has_service else local_pull_options(snapshotter, version=version)
    return (*CTR, "images", "pull", f"--platform={platform}", *local)


def has_pull_service(snapshotter: str, *, version: tuple[int, int]) -> bool:
    """Whether containerd itself pulls for ctr, and requests no layer that is unpacked.

    Its transfer service unpacks only for its configured snapshotters; on 1.7 it leaves images that
    CRI does not see (containerd #9039), and 1.6 has none.
    """
    return version >= (2, 0) and snapshotter == DEFAULT_SNAPSHOTTER


def local_pull_options(snapshotter: str, *, version: tuple[int, int]) -> Command:
    """Return the options with which ctr pulls by itself, without containerd's proxy settings."""
    return (*(["--local"] if version >= (1, 7) else []), f"--snapshotter={snapshotter}")


def tag_command(ctr: Sequence[str], existing: str, target: Digest, name: str) -> Command:
    """Return the command that tags the image of an existing name, if its target is `target`.

    `ctr` is the command line of ctr on the node; `existing` may be any string. ctr copies the
    labels. The labels of a pin belong to each name. If both names are
    the same, CRI reads the record again: it registers a record when an event reports a change, and
    labels it; containerd 1.7's transfer service sends no event (containerd #9039). Removing the
    label is such a change.
    """
    if existing == name:
        return (*ctr, "images", "label", name, f"{CRI_LABEL}=")
    labels = (_is_pinned(name), _PINNED, _is_pinned(name, _OWN_PIN), _OWN_PIN)
    words = (existing, points_to(existing, target), name, *labels)
    return ("sh", "-c", _RETAG, "imgload", *words, *ctr)


def pin_command(ctr: Sequence[str], name: str, *, own: bool = True) -> Command:
    """Return the command that pins a name, unless it is pinned; `own` marks the pin as imgload's.

    A pin belongs to the name. A pull removes the labels of an existing record, an import does not.
    """
    words = (name, _is_pinned(name), f"{_PINNED}=pinned", f"{_OWN_PIN}=pinned" if own else "")
    return ("sh", "-c", _PIN, "imgload", *words, *ctr)


def unpin_command(ctr: Sequence[str], name: str) -> Command:
    """Return the command that removes imgload's pin from a name."""
    words = (name, _is_pinned(name, _OWN_PIN), f"{_PINNED}=", f"{_OWN_PIN}=")
    return ("sh", "-c", _UNPIN, "imgload", *words, *ctr)


def _is_pinned(name: str, label: str = _PINNED) -> str:
    return f'name=={quoted(name)},labels."{label}"==pinned'


def probe_command(folder: str, name: str) -> Command:
    """Return the command that pulls an image, configured by a folder's file for its registry."""
    options = ("images", "pull", "--hosts-dir", folder)
    return ("ctr", "--timeout", "5s", *CTR[1:], *options, name)


def label_commands(loaded: Sequence[tuple[str, Digest]], now: float) -> list[Sequence[str]]:
    """Return the commands that label images as loaded by imgload, by their names and image IDs.

    If one fails, the only effect is that `imgload.prune` keeps the image.
    """
    return [
        (*CTR, "content", "label", str(config), f"{LOADED_KEY}{name}={now:.3f}")
        for name, config in loaded
    ]


def discard_commands(content: ContentStore, manifests: Iterable[Digest]) -> list[Command]:
    """Return the commands that remove the layers of manifests which no other manifest refers to.

    As for CRI's setting ``discard_unpacked_layers``, manifests no longer refer to their layers.
    Only the end of a lease makes containerd collect them immediately.
    """
    labels = {m: range(len(content.layers.get(m, ()))) for m in manifests}
    unlabel = [
        (
            *CTR,
            "content",
            "label",
            str(m),
            *(f"containerd.io/gc.ref.content.l.{n}=" for n in layers),
        )
        for m, layers in labels.items()
        if layers
    ]
    lease = f"imgload-{secrets.token_hex(8)}"
    leases = [("create", "--id", lease, "--expires", "1m"), ("delete", "--sync", lease)]
    return [*unlabel, *((*CTR, "leases", *words) for words in leases)] if unlabel else []


def parse_labels(labels: str) -> dict[str, float]:
    """Return the names that an image was loaded under, with the times, from its config's labels."""
    return {name: float(seconds) for name, seconds in _LOADED_LABEL.findall(labels)}


def parse_version(text: str) -> tuple[int, int]:
    """Return major and minor of the server from ``ctr version``, or (0, 0)."""
    match = _VERSION.search(text)
    return (int(match.group(1)), int(match.group(2))) if match else (0, 0)


def parse_snapshotter(config: str) -> str | None:
    """Return CRI's snapshotter from ``containerd config dump`` (kind #3871).

    The default runtime's snapshotter takes precedence. A configuration without the setting means
    containerd's documented default. None when the text is no configuration, or the name is invalid.
    """
    plugins = _plugins(config)
    if plugins is None or not config.strip():
        return None
    current, *older = (dig(plugins, plugin, "containerd") for plugin in _RUNTIME_PLUGINS)
    settings = []
    for section in (current, *older):
        default = dig(section, "default_runtime_name")
        runtime = default if isinstance(default, str) and default else "runc"
        settings.append(dig(section, "runtimes", runtime, "snapshotter"))
    settings.append(dig(plugins, CRI_PLUGINS[3], "snapshotter"))
    settings += [dig(section, "snapshotter") for section in older]
    name = next(filter(None, settings), DEFAULT_SNAPSHOTTER)
    return name if isinstance(name, str) and _IDENTIFIER.fullmatch(name) else None


def parse_registry_folders(config: str) -> tuple[str, ...] | None:
    """Return the folders of CRI's registries from ``containerd config dump``; () if none is set.

    None when ``config_path`` has anything but absolute paths of plain characters.
    """
    plugins = _plugins(config)
    paths = (dig(plugins, plugin, "registry", "config_path") for plugin in CRI_PLUGINS.values())
    setting = next((path for path in paths if isinstance(path, str) and path), "")
    folders = tuple(setting.split(":")) if setting else ()
    return folders if all(map(_FOLDER.fullmatch, folders)) else None


def parse_root(config: str) -> str | None:
    """Return the folder of content from containerd's configuration, or None."""
    return _first_path((_settings(config) or {}).get("root"))


def _plugins(config: str) -> Any:
    """Return the plugins' settings, None where the text is not TOML."""
    settings = _settings(config)
    return None if settings is None else settings.get("plugins", {})


def _settings(config: str) -> dict[str, Any] | None:
    try:
        import tomllib  # noqa: PLC0415 - start-up

        return tomllib.loads(config)
    except (ValueError, RecursionError):
        return None


def rows(text: str, columns: int) -> list[list[str]]:
    """Return the rows of a table without its heading that have a number of columns or more."""
    return [row for line in text.splitlines()[1:] if len(row := line.split()) >= columns]


class Record(NamedTuple):
    """An image record; pinned ones must not be removed, `own_pin` is imgload's."""

    name: str
    target: Digest
    in_cri: bool = True
    pinned: bool = False
    own_pin: bool = False


def parse_records(text: str) -> list[Record]:
    """Return the image records of ``ctr images ls``."""
    matches = filter(None, map(_RECORD.match, text.splitlines()[1:]))
    labels = f"{CRI_LABEL}=managed", f"{_PINNED}=pinned", f"{_OWN_PIN}=pinned"
    return [Record(m[1], Digest.parse(m[2]), *(x in m[3] for x in labels)) for m in matches]


def parse_snapshots(text: str) -> dict[Digest, Digest | None]:
    """Return the unpacked chain IDs of ``ctr snapshots ls``, with those of their parents."""
    committed = [row for row in rows(text, 2) if row[-1] == "Committed"]
    chain_ids = {Digest.try_parse(key): Digest.try_parse(parent) for key, parent, *_ in committed}
    return {chain_id: parent for chain_id, parent in chain_ids.items() if chain_id}


def reachable(roots: Iterable[T], references: Callable[[T], Iterable[T]]) -> set[T]:
    """Return the roots, the things that they refer to, and so on."""
    waiting, reached = list(roots), set[T]()
    while waiting:
        item = waiting.pop()
        if item not in reached:
            reached.add(item)
            waiting.extend(references(item))
    return reached


@attrs.frozen
class ContentStore:
    """The blobs of the content store, and their references, from containerd's labels.

    `configs` has the config of each manifest, `references` the blobs that each blob refers to, and
    `rows` the size, age and labels of each blob as ctr prints them. `layers` are those to which
    each manifest refers, bottom up: none if they were discarded. `diff_ids` are those of the layers
    that containerd has unpacked, by blob.
    """

    blobs: frozenset[Digest] = frozenset()
    configs: Mapping[Digest, Digest] = attrs.field(factory=dict, hash=False)
    references: Mapping[Digest, Sequence[Digest]] = attrs.field(factory=dict, hash=False)
    rows: Mapping[Digest, str] = attrs.field(factory=dict, hash=False, repr=False)
    layers: Mapping[Digest, Sequence[Digest]] = attrs.field(factory=dict, hash=False)
    diff_ids: Mapping[Digest, Digest] = attrs.field(factory=dict, hash=False)

    def blobs_under(self, target: Digest) -> frozenset[Digest]:
        """Return the blobs on the node that a manifest or an index refers to, itself included."""
        digests = reachable([target], self._references)
        return self.blobs & digests

    def configs_under(self, target: Digest) -> frozenset[Digest]:
        """Return the config of a manifest, or the configs of all manifests below an index."""
        return frozenset(self.configs[manifest] for manifest in self.manifests_under(target))

    def manifests_under(self, target: Digest) -> frozenset[Digest]:
        """Return a manifest itself, or all manifests below an index."""
        digests = reachable([target], lambda d: () if d in self.configs else self._references(d))
        return frozenset(digests & self.configs.keys())

    def stored_layers(self, manifest: Digest, diff_ids: Sequence[Digest]) -> set[Digest] | None:
        """Return the layers of a manifest that are stored, by diff ID; None if that is unknown.

        A blob that a manifest uses for different layers is at most one of them.
        """
        if manifest not in self.layers:
            return None
        layers = self.layers[manifest]
        if len(layers) != len(diff_ids):
            return set()
        pairs = set(zip(layers, diff_ids, strict=True))
        uses = Counter(blob for blob, _ in pairs)
        return {
            diff_id
            for blob, diff_id in pairs
            if blob in self.blobs
            and self.diff_ids.get(blob, diff_id) == diff_id
            and uses[blob] == 1
        }

    def forms_of(self, diff_ids: Collection[Digest]) -> dict[Digest, Digest]:
        """Return the diff IDs of blobs that store some layers, and to which a manifest refers."""
        referred = {blob for layers in self.layers.values() for blob in layers} & self.blobs
        forms = {blob: self.diff_ids.get(blob, blob) for blob in referred}
        return {blob: diff_id for blob, diff_id in forms.items() if diff_id in diff_ids}

    def _references(self, digest: Digest) -> Sequence[Digest]:
        return self.references.get(digest, ())

    def loaded_as(self, name: str) -> dict[Digest, float]:
        """Return the configs that imgload loaded under a name, and when (seconds since 1970)."""
        times = {digest: parse_labels(row).get(name) for digest, row in self.rows.items()}
        return {digest: time for digest, time in times.items() if time is not None}


def parse_content(text: str) -> ContentStore:
    """Return the content store from ``ctr content ls``."""
    configs: dict[Digest, Digest] = {}
    references: dict[Digest, Sequence[Digest]] = {}
    texts: dict[Digest, str] = {}
    layers: dict[Digest, Sequence[Digest]] = {}
    diff_ids: dict[Digest, Digest] = {}
    for line in text.splitlines()[1:]:
        key, _, row = line.partition("\t")
        if digest := Digest.try_parse(key):
            labels = {label: Digest.parse(value) for label, value in _REFERENCE.findall(row)}
            if "config" in labels:
                configs[digest] = labels["config"]
                layers[digest] = _in_order(labels)
            if uncompressed := _UNCOMPRESSED.search(row):
                diff_ids[digest] = Digest.parse(uncompressed[1])
            references[digest] = tuple(labels.values())
            texts[digest] = row
    return ContentStore(frozenset(texts), configs, references, texts, layers, diff_ids)


def _in_order(labels: Mapping[str, Digest]) -> tuple[Digest, ...]:
    """Return the layers of a manifest, bottom up, from its labels."""
    numbers = {int(match[1]): key for key in labels if (match := _LAYER_KEY.fullmatch(key))}
    return tuple(labels[numbers[number]] for number in sorted(numbers))


def crictl_command(crictl: Command, endpoint: str, arguments: Sequence[str]) -> Command:
    """Return a command of crictl for the CRI at an endpoint."""
    return with_reason((*crictl, "-r", endpoint, "-i", endpoint, *arguments))


def inspect_image(name: str) -> Command:
    return ("crictl", "inspecti", name)


def pull_image(name: str) -> Command:
    return ("crictl", "pull", name)


@attrs.frozen
class CriAnswer:
    """CRI's answer about one name; `image_id` is None if CRI does not know it, or failed."""

    image_id: Digest | None
    failure: str = ""
    pinned: bool = False


def parse_inspect(output: Output, hint: str = CRI_HINT) -> CriAnswer | None:
    """Parse the output of ``crictl inspecti``; None where the node has no crictl.

    NodeUnusable with `hint` when crictl does not reach CRI, so that nothing is known about the
    image. CRI-O's image IDs have no algorithm (cri-o server/image_status.go).
    """
    if output.exit_status in {NOT_FOUND, NOT_PERMITTED}:
        return None
    if output.exit_status:
        failure = reason(output.text)
        if _NOT_CONNECTED.search(failure):
            raise NodeUnusable(f"crictl does not reach CRI: {failure}", hint=hint)
        return CriAnswer(None, "" if "no such image" in failure else failure)
    try:
        status = json.loads(output.stdout)["status"]
        image_id = Digest("sha256", status["id"].removeprefix("sha256:"))
        return CriAnswer(image_id, pinned=status.get("pinned") is True)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, ArchiveInvalid):
        return CriAnswer(None, "cannot parse the output of crictl inspecti")


def parse_cri_containers(output: Output) -> frozenset[str]:
    """Return the names, IDs and digests by which ``crictl ps -a`` lists containers' images.

    NodeUnusable when crictl exists and fails: an image in use might look unused.
    """
    if output.exit_status in {NOT_FOUND, NOT_PERMITTED}:
        return frozenset()
    if output.exit_status:
        failure = reason(output.text)
        raise NodeUnusable(f"crictl does not list the containers: {failure}", hint=CRI_HINT)
    names: list[Any] = []
    with suppress(ValueError, KeyError, TypeError, AttributeError, RecursionError):
        for c in json.loads(output.stdout)["containers"]:
            names += [c.get("imageRef"), c.get("imageId"), (c.get("image") or {}).get("image")]
    return frozenset(name for name in names if isinstance(name, str) and name)
