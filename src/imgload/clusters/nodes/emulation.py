"""The architectures that a node emulates, from its kernel's registry of binary formats.

Sources: Linux, Documentation/admin-guide/binfmt-misc.rst; the ELF specification, "ELF Header".
"""

from __future__ import annotations

import re

_FOLDER = "/proc/sys/fs/binfmt_misc"
_LIST = f"""cd {_FOLDER} && cat status || exit
for file in *; do
    case $file in register | status) ;; *) echo; cat "./$file" ;; esac
done"""
_READ = f"""
list=$1
if [ -e {_FOLDER}/status ] || ! grep -Eq '^ *0 +0 +4294967295$' /proc/self/uid_map
then sh -c "$list"
else unshare -m sh -c "mount -t binfmt_misc binfmt_misc {_FOLDER} && $list"
fi 2>/dev/null | head -c 65536
"""
READ_MOUNTED = ("sh", "-c", f"{{ {_LIST}; }} 2>/dev/null | head -c 65536")
"""Prints the registry's state, and each entry after an empty line; nothing if it is unreadable."""
READ = ("sh", "-c", _READ, "imgload", _LIST)
"""Does the same, and mounts the registry for this command only, where it is not mounted.

In a user namespace, mounting would replace the registry of the machine by an empty one (Linux 6.7,
fs/binfmt_misc.c).
"""
_HEADERS = {
    "386": (1, "little", 3),
    "amd64": (2, "little", 62),
    "arm": (1, "little", 40),
    "arm64": (2, "little", 183),
    "loong64": (2, "little", 258),
    "mips": (1, "big", 8),
    "mipsle": (1, "little", 8),
    "mips64": (2, "big", 8),
    "mips64le": (2, "little", 8),
    "ppc64": (2, "big", 21),
    "ppc64le": (2, "little", 21),
    "riscv64": (2, "little", 243),
    "s390x": (2, "big", 22),
}
"""The class (1 for 32 bits, 2 for 64), byte order and machine of an ELF header."""
_LINE = re.compile(r"^(flags: |offset |magic |mask )(\w*)$", re.MULTILINE | re.ASCII)


def parse_registry(text: str) -> frozenset[str] | None:
    """Return the emulated architectures that a command above printed; None if unreadable."""
    state, *entries = text.strip().split("\n\n")
    if state not in {"enabled", "disabled"}:
        return None
    listed = entries if state == "enabled" else ()
    return frozenset(name for name in _HEADERS if any(_runs(entry, name) for entry in listed))


def _runs(entry: str, architecture: str) -> bool:
    """Return whether an entry selects programs of an architecture, in every container.

    Without the flag F, the kernel looks for the emulator in the container.
    """
    values = {key.strip(" :"): value for key, value in _LINE.findall(entry)}
    if not entry.startswith("enabled\n") or "F" not in values.get("flags", ""):
        return False
    try:
        magic = bytes.fromhex(values["magic"])
        mask = bytes.fromhex(values.get("mask") or "ff" * len(magic))
    except (KeyError, ValueError):
        return False
    header = _header(architecture)
    is_elf = values.get("offset") == "0" and len(magic) >= len(header)
    return is_elf and all(
        (byte ^ expected) & bits == 0
        for byte, expected, bits in zip(header, magic, mask, strict=False)
    )


def _header(architecture: str) -> bytes:
    size, order, machine = _HEADERS[architecture]
    identity = b"\x7fELF" + bytes((size, 1 if order == "little" else 2, 1)) + bytes(9)
    numbers = (2, machine)  # an executable
    return identity + b"".join(n.to_bytes(2, order) for n in numbers)  # type: ignore[arg-type]
