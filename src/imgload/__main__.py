"""The program: ``imgload``, ``kubectl imgload``, ``python -m imgload``."""

from __future__ import annotations

import gc
import sys

gc.set_threshold(20_000, 20, 20)  # imports make little garbage, and looking for it takes 10 ms

try:
    from imgload.cli.app import program
except ImportError as error:
    if error.name != "imgload":
        raise
    # PyPI's "imgload" is another project, whose package has replaced imgload/__init__.py
    sys.exit(
        "error: the package `imgload` of another project overwrote files of imgload-k8s\n"
        "  try: pip uninstall imgload; pip install --force-reinstall --no-deps imgload-k8s"
    )

__all__ = ["program"]

if __name__ == "__main__":
    program()
