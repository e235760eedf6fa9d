"""``python -m tests.crash``: kill the host again and again, and say what was lost or done twice."""

from __future__ import annotations

import argparse
import secrets
import shutil
import sys
import tempfile
from pathlib import Path

from tests.crash.storm import Result, Storm


def main() -> int:
    """Run a storm and print its result; the exit code is 1 if something was violated."""
    parser = argparse.ArgumentParser(prog="python -m tests.crash", description=__doc__)
    parser.add_argument("kills", type=int, nargs="?", default=300, help="kill -9 of the host (default 300)")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10**9), help="of an earlier storm")
    parser.add_argument("--pace", type=float, default=0.3, help="least seconds of an import (default 0.3)")
    parser.add_argument("--jumps", action="store_true", help="put the host's clock 400 days forward or back")
    parser.add_argument("--folder", type=Path, help="where everything is put and left for a look at it")
    options = parser.parse_args()
    folder = options.folder or Path(tempfile.mkdtemp(prefix="crash-"))
    folder.mkdir(parents=True, exist_ok=True)
    _say(f"seed {options.seed}: the same choices again with `--seed {options.seed}`")
    result = Storm(
        folder, options.kills, options.seed, pace=options.pace, jumps=options.jumps, say=_say
    ).run()
    _tell(result)
    if result.violations:
        _say(f"everything is left in {folder}")
        return 1
    if options.folder is None:
        shutil.rmtree(folder)
    return 0


def _tell(result: Result) -> None:
    _say(f"\n{result.seconds:.0f} s, seed {result.seed}")
    for facts in (result.record.counts, result.facts):
        for what, value in facts.items():
            _say(f"  {what}: {value}")
    _say("  what unfinished runs were doing at the kills:")
    for what, count in result.record.kills.most_common():
        _say(f"    {count:5} {what}")
    for violation in result.violations:
        _say(f"VIOLATED: {violation}")
    _say("FAILED" if result.violations else "nothing lost, nothing done twice, nothing stuck")


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
