"""A new environment for each test."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.unit.emulator.asked import Asked


@pytest.fixture
async def qa(tmp_path: Path) -> AsyncIterator[Asked]:
    async with Asked.open(tmp_path / "qa.sqlite", region="Europe") as asked:
        yield asked
