"""``python -m gsth`` is ``gsth``."""

from __future__ import annotations

from gsth.cli import main

main()
