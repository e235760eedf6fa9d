"""Short storms; ``make crash`` is the long one."""

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
    assert result.record.decided, "somebody must have been asked"


def test_a_clock_that_jumps_applies_nothing_twice_and_lets_no_token_live_on(tmp_path: Path) -> None:
    seed = secrets.randbelow(10**9)
    result = Storm(tmp_path, 5, seed, pace=0.2, jumps=True, patience=90).run()
    assert result.violations == [], f"python -m tests.crash 5 --pace 0.2 --jumps --seed {seed}"
