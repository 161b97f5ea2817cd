"""What tests of `imgload doctor` share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import imgload
from imgload.tools.doctor.finding import Check, Status


def said(found: imgload.Diagnosis, check: Check, *statuses: Status) -> str:
    """Return what an area has to say, one finding a line, hints included."""
    wanted = [f for f in found.findings if f.check == check and f.status in statuses]
    return "\n".join(f"{f.message}: {f.hint}" for f in wanted)


def problems(found: imgload.Diagnosis, check: Check) -> str:
    """Return the problems of an area."""
    return said(found, check, "problem")


def kubeconfig(monkeypatch: pytest.MonkeyPatch, folder: Path, text: str) -> None:
    """Have KUBECONFIG name a file that holds the text."""
    (folder / "config").write_text(text)
    monkeypatch.setenv("KUBECONFIG", str(folder / "config"))


def program(monkeypatch: pytest.MonkeyPatch, folder: Path, name: str, script: str = "") -> None:
    """Put a program first on PATH."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
