"""CRI's ``config_path`` in ``config.toml``: set it and restart containerd, or restore both.

The file is edited as text, to keep comments and layout; two comments enclose the added lines. Each
change is one script on the node, which runs to its end even if this process is killed. It replaces
the file atomically, and restores the old one if containerd does not start with the new one.
Containers keep running: their shims are separate processes.
"""

from __future__ import annotations

import re
import shlex
import tomllib
from contextlib import suppress
from typing import Any

from imgload.clusters.nodes.containerd import CRI_PLUGINS, K3S
from imgload.clusters.nodes.node import Node
from imgload.core.errors import NodeUnusable
from imgload.oci.document import dig

_DEFAULT_PATH = "/etc/containerd/config.toml"
_BACKUP = ".before-imgload"
_MAX_CONFIG = 96 << 10
"""Bytes; Linux takes at most 128 KiB for one argument (execve(2), MAX_ARG_STRLEN)."""
_MANUALLY = "edit config_path there yourself, as docs/registry.md shows, and restart containerd"
_MARK = "# imgload registry connect: "
_WAS = "# was: "
_MIN_VERSION = 2
"""The version for a new configuration: every containerd from 1.3 on reads it."""
_BLOCK = re.compile(
    rf'^{_MARK}config_path = "(?P<folder>[^"\n]+)"\n(?:{_WAS}(?P<was>.*\n))?(?:version = \d\n)?'
    r'(?:\[plugins\."[\w.]+"\.registry\]\n)?  config_path = "(?P=folder)"\n'
    rf"{_MARK}end(?:\n|\Z)",
    re.MULTILINE,
)
_SETTING = r"""[ \t]*["']?config_path["']?\s*="""
_TABLE = (
    r"""^[ \t]*\[\s*plugins\s*\.\s*["']{plugin}["']\s*\.\s*["']?registry["']?\s*\].*\n"""
    r"((?:(?!\s*\[|{setting}).*\n)*)({setting}.*\n)?"
)
"""The table of CRI's registries: the lines before its ``config_path``, and that line."""
_LISTENER = r"""
listener() {
    socket='(/var)?/run/containerd/containerd\.sock'
    inode=$(sed -nE "s,.* 00010000 .* ([0-9]+) $socket\$,\1,p" /proc/net/unix | tail -n 1)
    for process in ${inode:+/proc/[0-9]*}; do
        [ "$(cat "$process/comm" 2>/dev/null)" = containerd ] || continue
        ls -l "$process/fd" 2>/dev/null | grep -qF "socket:[$inode]" || continue
        echo "${process#/proc/}"
        return 0
    done
}
"""
"""The socket identifies the node's containerd: other processes may have the same name."""
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
tr '\0' '\n' <"/proc/$pid/cmdline" |
    sed -nE 's/^(-c|--?config)=/config /p; /^(-c|--?config)$/ { n; s/^/config /p; }'
"""
_CHANGE = r"""
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
    for _ in $(seq 150); do
        case $(ctr --connect-timeout 2s plugins ls 2>/dev/null | grep 'grpc\.v1  *cri ') in
        *" ok"*) return 0 ;;
        *" error"*) return 1 ;;
        esac
        sleep 0.2
    done
    return 1
}
fail() { printf '%s\n' "$1" >&2; exit 1; }
set -eu
umask 022
file=$1 expected=$2 text=$3 manager=$4
backup=$file.before-imgload new=$file.imgload
[ -n "$manager" ] || fail "imgload cannot restart containerd: neither systemd nor a script that is \
the node's first process started it"
[ ! -L "$file" ] || fail "$file is a link, and imgload follows none"
[ "$(cat "$file" 2>/dev/null || :; echo .)" = "$expected." ] ||
    fail "$file has just been changed by somebody else"
"""
_SET = r"""
roll_back() {
    trap '' HUP INT TERM
    if [ -e "$backup" ]; then mv -f "$backup" "$file"; rm -f "$backup"; else rm -f "$file"; fi
    restart || echo "containerd does not start with its old configuration either" >&2
}
if [ "$expected" != "$text" ]; then
    [ ! -e "$backup" ] || [ "$backup" -ef "$file" ] || fail "$backup already exists"
    rm -f "$backup" "$new"
    [ ! -e "$file" ] || cp -p "$file" "$new"
    printf '%s' "$text" >"$new"
    output=$(containerd --config "$new" config dump 2>&1 >/dev/null) || {
        rm "$new"
        fail "containerd refuses it:
$output"
    }
    trap 'exit 1' HUP INT TERM
    trap roll_back EXIT
    [ ! -e "$file" ] || ln "$file" "$backup"
    mv -f "$new" "$file"
fi
restart || fail 'containerd did not start with it'
trap - EXIT
"""
_RESTORE = r"""
if [ -e "$backup" ] && [ "$(cat "$backup")" = "$(printf '%s' "$text")" ]; then
    mv -f "$backup" "$file"
elif [ -e "$backup" ] || [ -n "$text" ]; then
    cp -p "$file" "$new"
    printf '%s' "$text" >"$new"
    mv -f "$new" "$file"
    rm -f "$backup"
else
    rm -f "$file"
fi
restart || fail 'containerd did not start with it'
"""


def require_editable(node: Node) -> None:
    """Refuse k3s and RKE2, which write it at each start (k3s, pkg/agent/containerd)."""
    if node.runtime.socket == K3S.socket:
        raise NodeUnusable(
            f"{node.name}: CRI reads no folder of registries, and k3s writes its configuration",
            hint="use a newer k3s, which names one, or k3s's own registries.yaml:"
            " k3d cluster create --registry-config",
        )


def set_folder(node: Node, folder: str) -> str:
    """Set CRI's ``config_path``, restart containerd, and return the path of its configuration."""
    path, text, _, manager = _read(node)
    with node.naming_node_in_errors():
        edited = with_folder(text, folder)
    _change(node, _SET, path, text, edited, manager)
    return path


def restore(node: Node) -> tuple[str, ...]:
    """Revert `set_folder`, restart containerd, and return the path of its configuration, if any."""
    if node.runtime.socket == K3S.socket:
        return ()
    path, text, backup, manager = _read(node)
    with node.naming_node_in_errors():
        restored = without_folder(text)
    if restored is None:
        if backup in {None, text}:
            return ()
        raise NodeUnusable(
            f"{node.name}: {path} no longer has the lines that imgload added",
            hint=f"move back, or remove, the original: {shlex.quote(path + _BACKUP)}",
        )
    _change(node, _RESTORE, path, text, restored, manager)
    return (path,)


def _read(node: Node) -> tuple[str, str, str | None, str]:
    """Return the path, the text (empty without a file), the backup, and containerd's manager."""
    result = node.engine.exec(node.container.id, ["sh", "-c", _LISTENER + _INSPECT])
    lines = result.stdout.decode(errors="replace").splitlines()
    facts = dict(line.partition(" ")[::2] for line in lines)
    path = facts.get("config", _DEFAULT_PATH)
    file, backup = node.run_all([("cat", path), ("cat", f"{path}{_BACKUP}")])
    text = file.text if file.exit_status == 0 else ""
    original = backup.text if backup.exit_status == 0 else None
    if "\N{REPLACEMENT CHARACTER}" in text or len(file.stdout) > _MAX_CONFIG:
        message = f"{node.name}: {path} is not UTF-8, or larger than {_MAX_CONFIG} bytes"
        raise NodeUnusable(message, hint=_MANUALLY)
    return path, text, original, facts.get("manager", "")


def _change(node: Node, script: str, path: str, *words: str) -> None:
    argv = ["sh", "-c", _LISTENER + _CHANGE + script, "imgload", path, *words]
    result = node.engine.exec(node.container.id, argv)
    if result.exit_status:
        message = f"{node.name}: changing {path} failed: {result.message}"
        raise NodeUnusable(message, hint=_MANUALLY)


def with_folder(text: str, folder: str) -> str:
    """Return a configuration (empty without a file) with CRI's ``config_path`` set to a folder."""
    document = _parse(text)
    version = document.get("version", 1) if document else _MIN_VERSION
    plugin = CRI_PLUGINS.get(version) if isinstance(version, int) else None
    if plugin is None or version < _MIN_VERSION:
        raise NodeUnusable(f"containerd's configuration has version {version!r:.20}, not 2, 3 or 4")
    if dig(document, "plugins", plugin, "registry", "mirrors"):
        raise NodeUnusable("containerd refuses config_path beside registry.mirrors, which are set")
    if dig(document, "plugins", plugin, "registry", "config_path") == folder:
        return text
    edited = _insert(text, plugin, folder, "" if document else f"version = {_MIN_VERSION}\n")
    expected = document or {"version": _MIN_VERSION}
    with suppress(AttributeError, TypeError):  # if a value is no table, the edited text is invalid
        plugins = expected.setdefault("plugins", {})
        plugins.setdefault(plugin, {}).setdefault("registry", {})["config_path"] = folder
    if _parse(edited) != expected:
        raise NodeUnusable("imgload cannot edit containerd's configuration in this layout")
    return edited


def without_folder(text: str) -> str | None:
    """Return a configuration without the lines of `with_folder`; None if it has none."""
    if _MARK not in text:
        return None
    restored, count = _BLOCK.subn(lambda match: match["was"] or "", text)
    if count != 1 or _MARK in restored:
        raise NodeUnusable("somebody changed imgload's lines in containerd's configuration")
    _parse(restored)
    return restored


def _insert(text: str, plugin: str, folder: str, version: str) -> str:
    begin, end = f'{_MARK}config_path = "{folder}"\n', f"{_MARK}end\n"
    setting = f'  config_path = "{folder}"\n'
    text += "\n" if text and not text.endswith("\n") else ""
    pattern = _TABLE.format(plugin=re.escape(plugin), setting=_SETTING)
    table = re.search(pattern, text, re.MULTILINE)
    if table is None:
        return f'{text}{begin}{version}[plugins."{plugin}".registry]\n{setting}{end}'
    if table[2]:
        return f"{text[: table.start(2)]}{begin}{_WAS}{table[2]}{setting}{end}{text[table.end() :]}"
    return f"{text[: table.start(1)]}{begin}{setting}{end}{text[table.start(1) :]}"


def _parse(text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise NodeUnusable(f"containerd's configuration cannot be edited: {error}") from error
