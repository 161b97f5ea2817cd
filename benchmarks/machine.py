"""The machine that was measured on, in general words."""

import os
import platform
from typing import Any


def describe() -> dict[str, Any]:
    """Return what matters for the times, and nothing that names the machine."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "cores": len(os.sched_getaffinity(0)),
        "memory": memory,
        "system": _system(),
        "kernel": platform.release().partition("-")[0],
        "python": platform.python_version(),
        "busy": os.getloadavg()[0],
        "minutes": 0.0,
    }


def _system() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        return platform.system()
