"""Helpers of the tests of `imgload doctor`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import imgload
from imgload.tools.doctor.finding import Check, Status


def messages(diagnosis: imgload.Diagnosis, check: Check, *statuses: Status) -> str:
    """Return the findings of an area with their hints, one per line."""
    wanted = [f for f in diagnosis.findings if f.check == check and f.status in statuses]
    return "\n".join(f"{f.message}: {f.hint}" for f in wanted)


def problems(diagnosis: imgload.Diagnosis, check: Check) -> str:
    """Return the problems of an area."""
    return messages(diagnosis, check, "problem")


def kubeconfig(monkeypatch: pytest.MonkeyPatch, folder: Path, text: str) -> None:
    """Set KUBECONFIG to a file with this text."""
    (folder / "config").write_text(text)
    monkeypatch.setenv("KUBECONFIG", str(folder / "config"))


def program(monkeypatch: pytest.MonkeyPatch, folder: Path, name: str, script: str = "") -> None:
    """Put a program first on PATH."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
