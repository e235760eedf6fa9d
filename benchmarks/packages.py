"""How much slower reading packages is than the least that any reader does.

    python benchmarks/packages.py [FOLDER [ROUNDS]]

The baseline reads every entry with ``zipfile``, hashes it, and parses every .xml with lxml and every .json
with json. Both are timed in turn over all packages of FOLDER (by default the real ones beside the
repository), so that a busy machine slows both alike; the medians and their ratio are printed.
"""

from __future__ import annotations

import hashlib
import io
import json
import statistics
import sys
import time
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

from lxml import etree

from pipelinehost_dataverse.solution import read

LIMIT = 3.0
"""The ratio that is still good enough."""


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


def main(folder: Path, rounds: int) -> int:
    """Time both in turn and print; 1 if the ratio is over the limit."""
    packages = [path.read_bytes() for path in sorted(folder.glob("*.zip"))]
    if not packages:
        print(f"no packages in {folder}", file=sys.stderr)
        return 2
    for work in (bare, read):
        seconds(work, packages)
    pairs = [(seconds(bare, packages), seconds(read, packages)) for _ in range(rounds)]
    base, ours = (statistics.median(column) for column in zip(*pairs, strict=True))
    ratio = statistics.median(mine / theirs for theirs, mine in pairs)
    print(f"{len(packages)} packages, {sum(map(len, packages)):,} bytes, {rounds} rounds")
    print(f"baseline {base * 1e3:8.1f} ms")
    print(f"read     {ours * 1e3:8.1f} ms   ratio {ratio:.2f} (limit {LIMIT})")
    return 1 if ratio > LIMIT else 0


if __name__ == "__main__":
    _default = Path(__file__).resolve().parents[2] / "shared" / "solutions" / "valid"
    sys.exit(
        main(
            Path(sys.argv[1]) if len(sys.argv) > 1 else _default,
            int(sys.argv[2]) if len(sys.argv) > 2 else 9,
        )
    )
