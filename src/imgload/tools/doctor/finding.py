"""The findings of the checks, as values and as a JSON document."""

from __future__ import annotations

from typing import Any, Literal

import attrs

from imgload.core.errors import JSON_VERSION, ImgloadError, one_line, printable

Check = Literal[
    "engines", "receiver", "context", "clusters", "nodes", "skaffold", "serve", "image", "pods"
]
Status = Literal["ok", "info", "warning", "problem"]


@attrs.frozen
class Finding:
    """The result of one check.

    Args:
        check: the area that the check belongs to.
        status: ``ok``; ``info``; ``warning``, which may become a problem; or ``problem``, which
            keeps images from nodes or pods.
        message: the fact, in one or two lines.
        hint: the fix, preferably a command; may be empty.
        exit_status: of the command, if this is a problem.

    """

    check: Check
    status: Status
    message: str = attrs.field(converter=printable)
    hint: str = attrs.field(default="", converter=one_line)
    exit_status: int = attrs.field(default=1, repr=False)

    @classmethod
    def of(cls, check: Check, error: ImgloadError, status: Status = "problem") -> Finding:
        """Return the finding with an error's message and hint."""
        return cls(check, status, error.message, error.hint)


@attrs.frozen
class Diagnosis:
    """All findings, in the order of the areas."""

    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """Whether there is no problem; warnings do not count."""
        return not self.problems

    @property
    def problems(self) -> tuple[Finding, ...]:
        """The findings that keep images from nodes or pods."""
        return tuple(finding for finding in self.findings if finding.status == "problem")

    @property
    def exit_status(self) -> int:
        """The command's exit status: 0, 1, or 4 if the named cluster or node is missing."""
        return max((finding.exit_status for finding in self.problems), default=0)

    def to_json(self) -> dict[str, Any]:
        """Return the document that ``imgload doctor --output json`` prints."""
        public = attrs.filters.exclude("exit_status")
        findings = [attrs.asdict(finding, filter=public) for finding in self.findings]
        return {"version": JSON_VERSION, "findings": findings, "ok": self.ok}
