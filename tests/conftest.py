"""What several kinds of tests share."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.in_process import InProcess

REAL_SOLUTIONS = Path(__file__).resolve().parents[2] / "shared" / "solutions"
"""Real packages that nobody here wrote; they are no part of the repository."""


@pytest.fixture(scope="session", autouse=True)
def _environments_in_process() -> Iterator[None]:
    """A host in a test's own process has its environments there: hundreds of processes would take minutes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipelinehost_server.deployment.environments.Embedded", InProcess)
        yield


@pytest.fixture(scope="session")
def real_solutions() -> Path:
    """The folder with ``valid/``, ``broken/`` and ``CATALOGUE.tsv``; skips where it is missing."""
    if not REAL_SOLUTIONS.is_dir():
        pytest.skip(
            "the folder shared/solutions beside the repository is missing: no real packages to test on"
        )
    return REAL_SOLUTIONS
