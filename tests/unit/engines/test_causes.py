"""Causes of an engine's errors, and their hints."""

import json
import re

import pytest

from imgload.engines.causes import cause_of, hint_for

MISSING = "saving x failed: open /etc/containers/policy.json: no such file or directory"
REJECTED = "Source image rejected: Running image containers-storage:x is rejected by policy."
UNVERIFIED = "could not verify layer data for: sha256:0. This may be because"
MISMATCH = "writing blob: happened during read: Digest did not match, expected a, got b"

UNCONVERTED = (
    'preparing updated manifest, layer "sha256:0": unsupported MIME type for decompression:'
    ' "application/vnd.docker.image.rootfs.diff.tar.gzip"'
)
UNREADABLE = (MISSING, REJECTED, UNVERIFIED, MISMATCH, UNCONVERTED, "write too long")


@pytest.mark.parametrize("message", UNREADABLE)
def test_an_image_that_cannot_be_read_is_neither_saved_nor_pushed(message: str) -> None:
    cause = cause_of(message)
    assert cause
    assert cause.final
    assert "info" not in hint_for(message, "podman")


def test_the_hint_for_a_missing_policy_is_a_command_with_valid_json() -> None:
    policy = re.search(
        r"echo '(.*)' \| sudo tee /etc/containers/policy.json", hint_for(MISSING, "podman")
    )
    assert policy
    assert json.loads(policy[1]) == {"default": [{"type": "insecureAcceptAnything"}]}


def test_an_unknown_cause_leads_to_the_engines_state() -> None:
    assert cause_of("nil pointer dereference") is None
    assert hint_for("nil pointer dereference", "podman") == "check the engine: podman info"
