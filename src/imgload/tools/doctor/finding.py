"""What a check found, as values, and as the JSON document that machines read."""

from __future__ import annotations

from typing import Any, Literal

import attrs

from imgload.core.errors import JSON_VERSION, ImgloadError, one_line, printable

Check = Literal["engines", "receiver", "context", "clusters", "nodes", "skaffold", "image", "pods"]
Status = Literal["ok", "info", "warning", "problem"]


@attrs.frozen
class Finding:
    """One thing that was looked at.

    Args:
        check: the area that it belongs to.
        status: ``ok``; ``info``, which is worth knowing; ``warning``, which may become a problem;
            ``problem``, which keeps images from the nodes or pods.
        message: what is so, in one or two lines.
        hint: what to do about it, preferably a command; may be empty.
        exit_status: of the command, where this is a problem.

    """

    check: Check
    status: Status
    message: str = attrs.field(converter=printable)
    hint: str = attrs.field(default="", converter=one_line)
    exit_status: int = attrs.field(default=1, repr=False)

    @classmethod
    def of(cls, check: Check, error: ImgloadError, status: Status = "problem") -> Finding:
        """Return the finding that an error is."""
        return cls(check, status, error.message, error.hint)


@attrs.frozen
class Diagnosis:
    """Everything that was looked at, area by area."""

    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """Whether there is no problem; warnings are none."""
        return not self.problems

    @property
    def problems(self) -> tuple[Finding, ...]:
        """What keeps images from the nodes or pods."""
        return tuple(found for found in self.findings if found.status == "problem")

    @property
    def exit_status(self) -> int:
        """The command's: 4 where the cluster or a node that was named is not there."""
        return max((found.exit_status for found in self.problems), default=0)

    def to_json(self) -> dict[str, Any]:
        """Return the document that ``imgload doctor --output json`` prints."""
        told = attrs.filters.exclude("exit_status")
        findings = [attrs.asdict(found, filter=told) for found in self.findings]
        return {"version": JSON_VERSION, "findings": findings, "ok": self.ok}
