"""A short run of the canary harness; ``make canary`` is the long one."""

from __future__ import annotations

import secrets
from pathlib import Path

from tests.canary.flight import fly


def test_no_secret_comes_out_anywhere(tmp_path: Path) -> None:
    seed = secrets.randbelow(10**9)
    result = fly(tmp_path, 20, 200, seed, upheavals=1, say=lambda _: None)
    again = f"python -m tests.canary 20 --operations 200 --upheavals 1 --seed {seed}"
    assert list(result.record.leaks.values()) == [], again
    assert result.complaints == [], f"it proves nothing: {again}"
    assert dict(result.record.troubles) == {}, again
