"""A node's kubelet: when it removes images, and which ones it keeps from pods."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from hashlib import sha256

import attrs

from imgload.oci.digest import Digest
from imgload.oci.reference import Reference

_CONFIG = "/var/lib/kubelet/config.yaml"
_RECORDS = "/var/lib/kubelet/image_manager/pulled"
_READ = f"""
[ -f {_CONFIG} ] || exit 0
head -c 65536 {_CONFIG}
echo
grep -hs ImagePulledRecord {_RECORDS}/sha256-* | head -c 262144
"""
READ = ("sh", "-c", _READ)
"""The command that prints the kubelet's configuration, and its records of pulled images."""
_PERCENT = re.compile(r"^imageGCHighThresholdPercent:\s*(\d{1,3})\s*$", re.MULTILINE)
_POLICY = re.compile(r"^imagePullCredentialsVerificationPolicy:\s*[\"']?(\w+)", re.MULTILINE)
_ALLOWED = re.compile(
    r"^preloadedImagesVerificationAllowlist:[^\n]*\n((?:[ \t]*-[^\n]*\n)+)", re.MULTILINE
)
_ITEM = re.compile(r"-\s*[\"']?([^\s\"']+)")
_GC_PERCENT, _GC_OFF = 85, 100
_PRELOADED, _ALWAYS = "NeverVerifyPreloadedImages", "AlwaysVerify"
_ALLOWLISTED = "NeverVerifyAllowlistedImages"


@attrs.frozen
class Kubelet:
    """The settings of a kubelet that concern images on its node, and its pulls.

    Args:
        gc_percent: the usage of the disk from which it removes images that no container uses.
        policy: whose credentials it verifies (KEP-2535).
        allowed: repositories of which it never verifies any, with that policy.
        pulled: the repositories that it has pulled images from, by image ID.

    """

    gc_percent: int = _GC_PERCENT
    policy: str = _PRELOADED
    allowed: tuple[str, ...] = ()
    pulled: Mapping[str, frozenset[str]] = attrs.field(factory=dict, hash=False)

    @classmethod
    def parse(cls, text: str) -> Kubelet | None:
        """Parse the output of `READ`; None on a node without a kubelet's configuration."""
        if not text.strip():
            return None
        percent, policy, allowed = (p.search(text) for p in (_PERCENT, _POLICY, _ALLOWED))
        return cls(
            int(percent[1]) if percent else _GC_PERCENT,
            policy[1] if policy else _PRELOADED,
            tuple(_ITEM.findall(allowed[1])) if allowed else (),
            dict(_records(text)),
        )

    def removes_images(self, free: int, total: int) -> bool:
        """Whether a disk with so many bytes is too full (pkg/kubelet/images/image_gc_manager.go).

        kind and minikube set the threshold to 100 percent, which turns this off.
        """
        return self.gc_percent < _GC_OFF and used_percent(free, total) >= self.gc_percent

    def refusal(
        self, name: str, image_id: Digest, on_node: Callable[..., str]
    ) -> tuple[str, str] | None:
        """Return why pods without a pull secret cannot use a loaded image, and the remedy, or None.

        The kubelet counts an image as preloaded only if it has no record of its ID, under whichever
        name (kubernetes #138175; pkg/kubelet/images/pullmanager). `on_node` returns the
        command line that runs a command on the node.
        """
        reference, pulled = Reference.parse(name), self.pulled.get(str(image_id))
        repository = f"{reference.registry}/{reference.repository}"
        record = f"{_RECORDS}/sha256-{sha256(str(image_id).encode()).hexdigest()}"
        if repository in (pulled or ()):
            return None
        if self.policy == _ALLOWLISTED and not self._allows(repository):
            what = f"{_CONFIG} does not list {repository}"
            add = f"add it to preloadedImagesVerificationAllowlist in {_CONFIG}"
            return what, f"{add}, then: {on_node('systemctl', 'restart', 'kubelet')}"
        reasons, steps = list[str](), list[str]()
        if self.policy == _ALWAYS:
            reasons.append(f"{_CONFIG} says {_ALWAYS}")
            steps.append(f"sed -i s/{_ALWAYS}/{_PRELOADED}/ {_CONFIG}")
        if pulled is not None and self.policy in {_ALWAYS, _PRELOADED}:
            other = " and ".join(sorted(pulled)) or "another name"
            reasons.append(f"it pulled the same image as {other} (its record is {record})")
            steps.append(f"rm {record}")
        script = " && ".join([*steps, "systemctl restart kubelet"])
        return (", and ".join(reasons), on_node("sh", "-c", script)) if reasons else None

    def _allows(self, repository: str) -> bool:
        prefixes = tuple(item[:-1] for item in self.allowed if item.endswith("/*"))
        return repository in self.allowed or repository.startswith(prefixes)


def used_percent(free: int, total: int) -> int:
    return 100 - free * 100 // total if total else 0


def _records(text: str) -> Iterator[tuple[str, frozenset[str]]]:
    for line in text.splitlines():
        if line.startswith("{"):
            with suppress(ValueError, KeyError, TypeError, RecursionError):
                record = json.loads(line)
                names = frozenset(map(str, record.get("credentialMapping") or ()))
                yield str(record["imageRef"]), names
