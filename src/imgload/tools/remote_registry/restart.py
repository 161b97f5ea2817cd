"""Setting CRI's ``config_path`` on a node and restarting its containerd, and taking both back.

Each is one script that runs to its end on the node, also when this process is killed. The new file
replaces the old one in one step. When containerd does not come up with it, the script restores the
old one and restarts containerd again. Containers keep running: their shims are processes of their
own.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence

import attrs

from imgload.clusters.nodes.node import Node
from imgload.clusters.nodes.runtime import CONTAINERD, K3S
from imgload.core.errors import NodeUnusable
from imgload.tools.remote_registry.config import with_folder, without_folder

_CONFIG = "/etc/containerd/config.toml"
"""What containerd reads when it is not told otherwise."""
_BACKUP = ".before-imgload"
_LONGEST = 96 << 10
"""Bytes; Linux takes at most 128 KiB for one argument (execve(2), MAX_ARG_STRLEN)."""
_BY_HAND = "set config_path there by hand, as docs/registry.md shows, and restart containerd"
_LISTENER = r"""
listener() {
    inode=
    while read -r _ _ _ flags _ _ number path; do
        [ "$flags" != 00010000 ] || [ "${path#/var}" != /run/containerd/containerd.sock ] ||
            inode=$number
    done </proc/net/unix
    [ -n "$inode" ] || return 0
    for process in /proc/[0-9]*; do
        name=$(cat "$process/comm" 2>/dev/null) || continue
        [ "$name" = containerd ] || continue
        if ls -l "$process/fd" 2>/dev/null | grep -qF "socket:[$inode]"; then
            echo "${process#/proc/}"
            return 0
        fi
    done
}
"""
_LOOK = (
    _LISTENER
    + r"""
pid=$(listener)
[ -n "$pid" ] || exit 0
if [ -d /run/systemd/system ]; then
    main=$(systemctl show --property=MainPID containerd.service)
    [ "$main" != "MainPID=$pid" ] || echo manager systemd
else
    parent=$(grep '^PPid:' "/proc/$pid/status" | tr -cd 0-9)
    init=$(readlink /proc/1/exe)
    case $parent:${init##*/} in
    1:sh | 1:ash | 1:bash | 1:dash | 1:busybox) echo manager script ;;
    esac
fi
tr '\0' '\n' <"/proc/$pid/cmdline" | while read -r word; do printf 'word %s\n' "$word"; done
"""
)
"""The socket tells which process is the node's containerd: a name is anybody's."""
_RESTART = (
    _LISTENER
    + r"""
restart() {
    if [ "$manager" = systemd ]; then
        systemctl reset-failed containerd.service || :
        systemctl restart containerd.service || return 1
    else
        pid=$(listener)
        [ -z "$pid" ] || kill -TERM "$pid" || :
        tries=0
        while [ -n "$pid" ] && kill -0 "$pid" 2>/dev/null; do
            tries=$((tries + 1))
            [ $tries -ne 100 ] || kill -KILL "$pid" || :
            sleep 0.2
        done
    fi
    tries=0
    while [ $tries -lt 150 ]; do
        case $(ctr --connect-timeout 2s plugins ls 2>/dev/null | grep 'grpc\.v1  *cri ') in
        *" ok"*) return 0 ;;
        *" error"*) return 1 ;;
        esac
        tries=$((tries + 1))
        sleep 0.2
    done
    return 1
}
unchanged() {
    [ ! -L "$file" ] || { echo "$file is a link, which is not followed" >&2; exit 1; }
    [ "$(cat "$file" 2>/dev/null; echo .)" = "$expected." ] || {
        echo "$file was changed by somebody else in this moment" >&2
        exit 1
    }
}
set -eu
umask 022
file=$1 expected=$2 text=$3 manager=$4
backup=$file.before-imgload new=$file.imgload
"""
)
_SET = (
    _RESTART
    + r"""
unchanged
bring_back() {
    trap '' HUP INT TERM
    if [ -e "$backup" ]; then mv -f "$backup" "$file"; rm -f "$backup"; else rm -f "$file"; fi
    restart || echo "containerd does not come up with its old configuration either" >&2
}
if [ "$expected" != "$text" ]; then
    if [ -e "$backup" ] && [ ! "$backup" -ef "$file" ]; then
        echo "$backup is there already" >&2
        exit 1
    fi
    rm -f "$backup" "$new"
    [ ! -e "$file" ] || cp -p "$file" "$new"
    printf '%s' "$text" >"$new"
    said=$(containerd --config "$new" config dump 2>&1 >/dev/null) || {
        rm "$new"
        printf 'containerd refuses it:\n%s\n' "$said" >&2
        exit 1
    }
    trap 'exit 1' HUP INT TERM
    trap bring_back EXIT
    [ ! -e "$file" ] || ln "$file" "$backup"
    mv -f "$new" "$file"
fi
restart || { echo 'containerd did not come up with it' >&2; exit 1; }
trap - EXIT
"""
)
_RESTORE = (
    _RESTART
    + r"""
unchanged
case $5 in
backup) mv -f "$backup" "$file" ;;
remove) rm -f "$file" ;;
write)
    cp -p "$file" "$new"
    printf '%s' "$text" >"$new"
    mv -f "$new" "$file"
    rm -f "$backup"
    ;;
esac
restart || { echo 'containerd did not come up with it' >&2; exit 1; }
"""
)


@attrs.frozen
class _Service:
    """A node's containerd: its configuration file, and who restarts it; nobody is empty."""

    config: str = _CONFIG
    manager: str = ""


def require_own_configuration(node: Node) -> None:
    """Refuse a node whose containerd is configured by k3s.

    k3s writes the file at each start (k3s, pkg/agent/containerd), and containerd is its child.
    """
    if _is_k3s(node):
        raise NodeUnusable(
            f"{node.name}: CRI reads no folder of registries, and k3s writes its configuration",
            hint="use a newer k3s, which names one, or k3s's own registries.yaml:"
            " k3d cluster create --registry-config",
        )


def set_folder(node: Node, folder: str) -> str:
    """Set CRI's ``config_path``, restart containerd, and return the file that has it.

    Raises:
        NodeUnusable: when that is not possible, or containerd did not come up with it; then the
            node is as it was.

    """
    service = _look(node)
    with node.understanding():
        text, _ = _read(node, service.config)
        edited = with_folder(text, folder)
    _run(node, _SET, service, text, edited)
    return service.config


def restore(node: Node) -> tuple[str, ...]:
    """Take back what `set_folder` did, restart containerd then, and return the file it was in.

    Raises:
        NodeUnusable: when the file was changed in such a way that it cannot be taken back, or
            containerd did not come up.

    """
    if _is_k3s(node):
        return ()
    service = _look(node)
    with node.understanding():
        text, backup = _read(node, service.config)
        restored = without_folder(text)
        if restored is None and backup in {None, text}:
            return ()
        if restored is None:
            backup_path = shlex.quote(f"{service.config}{_BACKUP}")
            raise NodeUnusable(
                f"{service.config} is not what imgload wrote any more",
                hint=f"what it was before is {backup_path}: move or remove that",
            )
    if backup is not None and restored.rstrip("\n") == backup.rstrip("\n"):
        how = "backup"
    else:
        how = "write" if restored or backup is not None else "remove"
    _run(node, _RESTORE, service, text, restored, how)
    return (service.config,)


def _is_k3s(node: Node) -> bool:
    return (node.runtime or CONTAINERD).root == K3S.root


def _look(node: Node) -> _Service:
    result = node.engine.exec(node.container.id, ["sh", "-c", _LOOK])
    lines = result.stdout.decode(errors="replace").splitlines()
    words = [line.removeprefix("word ") for line in lines if line.startswith("word ")]
    service = _Service(manager="systemd" if "manager systemd" in lines else "")
    if "manager script" in lines:
        service = attrs.evolve(service, manager="script")
    for word, following in zip(words, [*words[1:], ""], strict=False):
        if word in {"-c", "--config", "-config"}:
            return attrs.evolve(service, config=following)
        if word.startswith(("--config=", "-config=", "-c=")):
            return attrs.evolve(service, config=word.partition("=")[2])
    return service


def _read(node: Node, path: str) -> tuple[str, str | None]:
    """Return the configuration, empty where there is none, and what it was before, if there is."""
    file, backup = node.run_all([("cat", path), ("cat", f"{path}{_BACKUP}")])
    try:
        text = file.stdout.decode() if file.exit_status == 0 else ""
        before = backup.stdout.decode() if backup.exit_status == 0 else None
    except UnicodeDecodeError as error:
        raise NodeUnusable(f"{path} is not valid UTF-8: {error}", hint=_BY_HAND) from error
    if len(file.stdout) > _LONGEST:
        raise NodeUnusable(f"{path} is larger than {_LONGEST} bytes", hint=_BY_HAND)
    return text, before


def _run(node: Node, script: str, service: _Service, *arguments: str) -> None:
    if not service.manager:
        raise NodeUnusable(
            f"{node.name}: its containerd cannot be restarted: neither systemd nor a script that is"
            " the node's first process has started it",
            hint=_BY_HAND,
        )
    text, edited, *how = arguments
    words: Sequence[str] = (service.config, text, edited, service.manager, *how)
    result = node.engine.exec(node.container.id, ["sh", "-c", script, "imgload", *words])
    if result.exit_status:
        raise NodeUnusable(
            f"{node.name}: changing {service.config} failed: {result.message}",
            hint=f"{node.engine.name} exec {node.name} containerd"
            f" --config {shlex.quote(service.config)} config dump",
        )
