"""The first command of the README, as a stranger runs it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pipelinehost_dataverse.solution import Table, missing, new_manifest, write

ROOT = Path(__file__).resolve().parents[2]


def demo(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "demo/run.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_the_demo_travels_to_production() -> None:
    shown = demo()
    output = shown.stdout + shown.stderr
    assert shown.returncode == 0, output
    assert "production holds Orders 1.0.0.0" in output
    assert "CONNECTION_MISSING" in output
    assert "UPGRADE_REMOVES" in output
    assert output.count("SUCCEEDED") >= 10


def test_a_package_of_ones_own_travels(tmp_path: Path) -> None:
    package = tmp_path / "Mine.zip"
    package.write_bytes(write(new_manifest("Mine", "2.0.0.1", managed=True), Table("cts_mine")))
    shown = demo(str(package))
    assert shown.returncode == 0, shown.stdout + shown.stderr
    assert "production holds Mine 2.0.0.1" in shown.stdout + shown.stderr


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "Git LFS pointer"),
        (
            write(
                new_manifest(
                    "Needy",
                    "1.0",
                    managed=True,
                    missing_dependencies=[missing(("entity", "cts_gone"), ("entity", "cts_mine"))],
                ),
                Table("cts_mine"),
            ),
            "MISSING_DEPENDENCY",
        ),
    ],
)
def test_what_cannot_travel_is_refused_with_words(tmp_path: Path, content: bytes, words: str) -> None:
    package = tmp_path / "Mine.zip"
    package.write_bytes(content)
    shown = demo(str(package))
    output = shown.stdout + shown.stderr
    assert shown.returncode in (1, 3), output
    assert words in output
    assert "Traceback" not in output


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    shown = demo(str(tmp_path / "nowhere.zip"))
    assert shown.returncode == 2
    assert "nowhere.zip" in shown.stdout
