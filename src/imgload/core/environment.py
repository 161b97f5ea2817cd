"""Variables of the environment in which imgload runs."""

from __future__ import annotations

import os


def in_ci() -> bool:
    """Whether this is a job of a CI service, all of which set ``CI``."""
    return os.environ.get("CI", "").lower() not in {"", "0", "false"}
