"""Runs the benchmarks and prints what they found."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping

from benchmarks import (
    access,
    emulator,
    environments,
    herd,
    imports,
    packages,
    record,
    startup,
    unary,
    upload,
    watchers,
)
from benchmarks.figures import Figure, others

_NOISY = 0.1

BENCHMARKS: Mapping[str, Callable[[], Iterator[Figure]]] = {
    "unary": unary.measure,
    "access": access.measure,
    "watchers": watchers.measure,
    "herd": herd.measure,
    "imports": imports.measure,
    "environments": environments.measure,
    "packages": packages.measure,
    "emulator": emulator.measure,
    "upload": upload.measure,
    "startup": startup.measure,
    "record": record.measure,
}


def main() -> int:
    """Runs those that were asked for; 1 if a target was missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHMARKS)}; all of them")
    names = parser.parse_args().names
    if unknown := set(names) - set(BENCHMARKS):
        parser.error(f"there is no benchmark {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}")
    missed = 0
    for name in names or BENCHMARKS:
        with others() as share:
            for figure in BENCHMARKS[name]():
                verdict = {None: "", True: "met", False: "MISSED"}[figure.met]
                missed += figure.met is False
                print(
                    f"{figure.what:66} {figure.value:>12}  {figure.target:10} {verdict}".rstrip(), flush=True
                )
        if share() > _NOISY:
            print(f"  (others used {share():.0%} of the machine's processors during {name!r})", flush=True)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
