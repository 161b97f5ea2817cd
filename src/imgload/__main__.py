"""``python -m imgload``."""

from __future__ import annotations

from imgload.cli import main

main()
