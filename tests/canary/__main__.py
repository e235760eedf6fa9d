"""``python -m tests.canary``: hand secrets over in every way there is, and look whether one comes out."""

from __future__ import annotations

import argparse
import secrets
import shutil
import sys
import tempfile
from pathlib import Path

from tests.canary.flight import Result, fly


def main() -> int:
    """Run the harness and print its result; the exit code is 1 if a secret was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.canary", description=__doc__)
    parser.add_argument("canaries", type=int, nargs="?", default=200, help="secrets (default %(default)s)")
    parser.add_argument("--operations", type=int, default=5_000, help="default %(default)s")
    parser.add_argument("--upheavals", type=int, help="kills and stops of the host (default: 1 in 250)")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10**9), help="of an earlier run")
    parser.add_argument("--folder", type=Path, help="where everything is put and left for a look at it")
    options = parser.parse_args()
    folder = options.folder or Path(tempfile.mkdtemp(prefix="canary-"))
    folder.mkdir(parents=True, exist_ok=True)
    _say(f"seed {options.seed}: the same choices again with `--seed {options.seed}`")
    upheavals = options.upheavals if options.upheavals is not None else options.operations // 250
    result = fly(folder, options.canaries, options.operations, options.seed, upheavals=upheavals, say=_say)
    tell(result)
    if not result.clean:
        _say(f"everything is left in {folder}")
        return 1
    if options.folder is None:
        shutil.rmtree(folder)
    return 0


def tell(result: Result) -> None:
    """Print it."""
    record = result.record
    _say(f"\n{result.seconds:.0f} s, seed {result.seed}")
    _say(f"  {sum(record.operations.values())} operations, {result.runs} runs, {result.canaries} secrets")
    _say(f"  {result.echoes} answers of environments that repeat secrets")
    for title, counts in (
        ("searched", record.answers),
        ("bytes", record.bytes),
        ("handed over", record.planted),
        ("outcomes", record.outcomes),
        ("by design", record.allowed),
        ("trouble", record.troubles),
    ):
        _say(f"  {title}:")
        for what, count in counts.most_common(20):
            _say(f"    {count:9,} {what}")
    for leak in record.leaks.values():
        _say(f"FOUND: {leak.label} in {leak.surface} ({leak.how}), during {leak.operation}")
    for complaint in result.complaints:
        _say(f"PROVES NOTHING: {complaint}")
    _say(f"{record.leaked} times a secret was found" if record.leaks else "no secret was found anywhere")


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
