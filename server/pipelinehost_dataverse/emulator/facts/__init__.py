"""Facts about the platform that are no code."""

from __future__ import annotations

import functools
from importlib.resources import files


@functools.cache
def platform_solutions() -> tuple[str, ...]:
    """Unique names of the solutions that a new environment already holds.

    Source: microsoft/terraform-provider-power-platform (MIT),
    ``internal/services/managed_solution/built-in-solutions.json``. The list has no versions.
    """
    text = files(__package__).joinpath("platform-solutions.txt").read_text(encoding="utf-8")
    return tuple(line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#"))
