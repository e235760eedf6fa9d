"""A short storm; ``make crash`` is the long one."""

from __future__ import annotations

import secrets
from pathlib import Path

from tests.crash.storm import Storm


def test_fifteen_kills_lose_nothing_and_repeat_nothing(tmp_path: Path) -> None:
    seed = secrets.randbelow(10**9)
    result = Storm(tmp_path, 15, seed, pace=0.2, patience=90).run()
    assert result.violations == [], f"python -m tests.crash 15 --pace 0.2 --seed {seed}"
    assert result.record.counts["kills of the host"] == 15
    assert result.record.kills.keys() != {"nothing"}, "the kills must hit something"
