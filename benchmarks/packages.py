"""How much slower reading packages is than the least that any reader does.

The baseline reads every entry with ``zipfile``, hashes it, and parses every .xml with lxml and every .json
with json. Both are timed in turn over all real packages beside the repository.
"""

from __future__ import annotations

import hashlib
import io
import json
import statistics
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence

from lxml import etree
from tests.conftest import REAL_SOLUTIONS

from benchmarks.figures import Figure, in_turn, ratio
from pipelinehost_dataverse.solution import read

ROUNDS = 7
LIMIT = 3.0


def bare(package: bytes) -> None:
    """The baseline: every entry decompressed, hashed and parsed, and nothing else."""
    with zipfile.ZipFile(io.BytesIO(package)) as archive:
        for entry in archive.infolist():
            content = archive.read(entry)
            hashlib.sha256(content).digest()
            if entry.filename.endswith(".xml"):
                etree.fromstring(content)
            elif entry.filename.endswith(".json"):
                json.loads(content.decode("utf-8-sig"))


def seconds(work: Callable[[bytes], object], packages: Sequence[bytes]) -> float:
    """How long one round over all packages takes."""
    started = time.perf_counter()
    for package in packages:
        work(package)
    return time.perf_counter() - started


def measure() -> Iterator[Figure]:
    """Both in turn over all real packages."""
    packages = [path.read_bytes() for path in sorted((REAL_SOLUTIONS / "valid").glob("*.zip"))]
    if not packages:
        print("  (the folder with real packages beside the repository is missing: not measured)")
        return
    for work in (bare, read):
        seconds(work, packages)
    found = in_turn(
        ROUNDS, {"ours": lambda: seconds(read, packages), "bare": lambda: seconds(bare, packages)}
    )
    what = f"reading {len(packages)} packages, of unpacking, hashing and parsing them"
    yield Figure.at_most(what, ratio(found["ours"], found["bare"]), LIMIT)
    yield Figure(
        f"packages: {sum(map(len, packages)):,} bytes",
        f"{statistics.median(found['ours']):.2f} s; baseline {statistics.median(found['bare']):.2f} s",
    )
