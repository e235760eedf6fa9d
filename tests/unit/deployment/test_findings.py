"""The catalogue: every code is in use, every text has its facts, and the page shows all."""

from pathlib import Path

import pytest

from pipelinehost_server.deployment.findings import CATALOGUE, finding

ROOT = Path(__file__).resolve().parents[3]
SOURCES = {path: path.read_text() for path in (ROOT / "server/pipelinehost_server/deployment").glob("*.py")}


@pytest.mark.parametrize("code", CATALOGUE)
def test_every_code_is_found_somewhere_and_documented(code: str) -> None:
    users = [
        path.name for path, text in SOURCES.items() if path.name != "findings.py" and f'"{code}"' in text
    ]
    assert users, f"nothing finds {code}"
    assert f"| `{code}` |" in (ROOT / "docs/findings.md").read_text()


def test_a_text_without_its_facts_is_a_defect() -> None:
    with pytest.raises(KeyError, match="environment"):
        finding("MODE_MISMATCH", name="x")


def test_facts_with_braces_stay_as_they_are() -> None:
    assert "{evil}" in finding("VERIFY_FAILED", environment="{evil}", found="", name="", version="").cause
