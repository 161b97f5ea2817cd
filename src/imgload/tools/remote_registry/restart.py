"""Set CRI's ``config_path`` on a node and restart its containerd, or restore both.

Each change is one script on the node, which runs to its end even if this process is killed. The
new file replaces the old one atomically. If containerd does not start with it, the script restores
the old one and restarts containerd again. Containers keep running: their shims are separate
processes.
"""

from __future__ import annotations

import shlex

from imgload.clusters.nodes.containerd import CONTAINERD, K3S
from imgload.clusters.nodes.node import Node
from imgload.core.errors import NodeUnusable
from imgload.tools.remote_registry.config import with_folder, without_folder

_CONFIG = "/etc/containerd/config.toml"
"""containerd's default."""
_BACKUP = ".before-imgload"
_MAX_CONFIG = 96 << 10
"""Bytes; Linux takes at most 128 KiB for one argument (execve(2), MAX_ARG_STRLEN)."""
_MANUALLY = "set config_path there yourself, as docs/registry.md shows, and restart containerd"
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
_INSPECT = r"""
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
"""The socket identifies the node's containerd: other processes may have the same name."""
_RESTART = r"""
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
    [ ! -L "$file" ] || { echo "$file is a link, and imgload follows none" >&2; exit 1; }
    [ "$(cat "$file" 2>/dev/null; echo .)" = "$expected." ] || {
        echo "$file has just been changed by somebody else" >&2
        exit 1
    }
}
set -eu
umask 022
file=$1 expected=$2 text=$3 manager=$4
backup=$file.before-imgload new=$file.imgload
"""
_SET = r"""
unchanged
roll_back() {
    trap '' HUP INT TERM
    if [ -e "$backup" ]; then mv -f "$backup" "$file"; rm -f "$backup"; else rm -f "$file"; fi
    restart || echo "containerd does not start with its old configuration either" >&2
}
if [ "$expected" != "$text" ]; then
    if [ -e "$backup" ] && [ ! "$backup" -ef "$file" ]; then
        echo "$backup already exists" >&2
        exit 1
    fi
    rm -f "$backup" "$new"
    [ ! -e "$file" ] || cp -p "$file" "$new"
    printf '%s' "$text" >"$new"
    output=$(containerd --config "$new" config dump 2>&1 >/dev/null) || {
        rm "$new"
        printf 'containerd refuses it:\n%s\n' "$output" >&2
        exit 1
    }
    trap 'exit 1' HUP INT TERM
    trap roll_back EXIT
    [ ! -e "$file" ] || ln "$file" "$backup"
    mv -f "$new" "$file"
fi
restart || { echo 'containerd did not start with it' >&2; exit 1; }
trap - EXIT
"""
_RESTORE = r"""
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
restart || { echo 'containerd did not start with it' >&2; exit 1; }
"""


def require_editable(node: Node) -> None:
    """Raise NodeUnusable if k3s writes the node's containerd configuration.

    k3s writes the file at each start (k3s, pkg/agent/containerd), and containerd is its child.
    """
    if _is_k3s(node):
        raise NodeUnusable(
            f"{node.name}: CRI reads no folder of registries, and k3s writes its configuration",
            hint="use a newer k3s, which names one, or k3s's own registries.yaml:"
            " k3d cluster create --registry-config",
        )


def set_folder(node: Node, folder: str) -> str:
    """Set CRI's ``config_path``, restart containerd, and return the path of its configuration.

    Raises NodeUnusable when that fails; the node is then as before.
    """
    config, manager = _inspect(node)
    with node.naming_node_in_errors():
        text, _ = _read(node, config)
        edited = with_folder(text, folder)
    _run(node, _SET, config, text, edited, manager)
    return config


def restore(node: Node) -> tuple[str, ...]:
    """Revert `set_folder`, restart containerd, and return the path of its configuration, if any.

    Raises NodeUnusable when somebody changed the added lines, or containerd does not start.
    """
    if _is_k3s(node):
        return ()
    config, manager = _inspect(node)
    with node.naming_node_in_errors():
        text, backup = _read(node, config)
        restored = without_folder(text)
        if restored is None and backup in {None, text}:
            return ()
        if restored is None:
            backup_path = shlex.quote(f"{config}{_BACKUP}")
            raise NodeUnusable(
                f"{config} no longer has the lines that imgload added",
                hint=f"the original is {backup_path}: move it back, or remove it",
            )
    if backup is not None and restored.rstrip("\n") == backup.rstrip("\n"):
        step = "backup"
    else:
        step = "write" if restored or backup is not None else "remove"
    _run(node, _RESTORE, config, text, restored, manager, step)
    return (config,)


def _is_k3s(node: Node) -> bool:
    return (node.runtime or CONTAINERD).root == K3S.root


def _inspect(node: Node) -> tuple[str, str]:
    """Return the path of containerd's configuration, and its service manager, if any."""
    result = node.engine.exec(node.container.id, ["sh", "-c", _LISTENER + _INSPECT])
    lines = [line.partition(" ") for line in result.stdout.decode(errors="replace").splitlines()]
    manager = next((value for key, _, value in lines if key == "manager"), "")
    words = [value for key, _, value in lines if key == "word"]
    for word, following in zip(words, [*words[1:], ""], strict=False):
        if word in {"-c", "--config", "-config"}:
            return following, manager
        if word.startswith(("--config=", "-config=", "-c=")):
            return word.partition("=")[2], manager
    return _CONFIG, manager


def _read(node: Node, path: str) -> tuple[str, str | None]:
    """Return the configuration, empty without a file, and its backup, or None without one."""
    file, backup = node.run_all([("cat", path), ("cat", f"{path}{_BACKUP}")])
    try:
        text = file.stdout.decode() if file.exit_status == 0 else ""
        original = backup.stdout.decode() if backup.exit_status == 0 else None
    except UnicodeDecodeError as error:
        raise NodeUnusable(f"{path} is not valid UTF-8: {error}", hint=_MANUALLY) from error
    if len(file.stdout) > _MAX_CONFIG:
        raise NodeUnusable(f"{path} is larger than {_MAX_CONFIG} bytes", hint=_MANUALLY)
    return text, original


def _run(node: Node, script: str, *words: str) -> None:
    """Run a script with the configuration's path and texts, the service manager, and the step."""
    config, _, _, manager, *_ = words
    if not manager:
        raise NodeUnusable(
            f"{node.name}: imgload cannot restart its containerd: neither systemd nor a script that"
            " is the node's first process started it",
            hint=_MANUALLY,
        )
    argv = ["sh", "-c", _LISTENER + _RESTART + script, "imgload", *words]
    result = node.engine.exec(node.container.id, argv)
    if result.exit_status:
        raise NodeUnusable(
            f"{node.name}: changing {config} failed: {result.message}",
            hint=f"{node.engine.name} exec {node.name} containerd"
            f" --config {shlex.quote(config)} config dump",
        )
