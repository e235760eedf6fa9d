"""What an embedded environment takes for the largest real package, as ratios to the time of reading it."""

from __future__ import annotations

import asyncio
import base64
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import httpx
from tests.conftest import REAL_SOLUTIONS

from benchmarks.figures import Figure, ratio
from pipelinehost_dataverse.emulator import EmbeddedEnvironment
from pipelinehost_dataverse.solution import Column, Solution, Table, new_manifest, read, rewrite, write

_NAME = "CenterofExcellenceCoreComponents_{}_managed.zip"
ROUNDS = 7


def measure() -> Iterator[Figure]:
    """Each operation from request to answer over the Web API, in process, on a new file each round."""
    old, new = (REAL_SOLUTIONS / "valid" / _NAME.format(version) for version in ("1_72", "2_1_6"))
    if old.exists() and new.exists():
        packages = old.read_bytes(), new.read_bytes()
    else:
        print("  (the folder with real packages beside the repository is missing: packages are built)")
        packages = _built("1.0", 50), _built("2.0", 60)
    yield from asyncio.run(_measured(*packages))


async def _measured(old: bytes, new: bytes) -> list[Figure]:
    took: dict[str, list[float]] = {}
    unmanaged = rewrite(new, managed=False)
    name = read(new).manifest.unique_name

    async def timed(what: str, client: httpx.AsyncClient, message: str, **body: object) -> httpx.Response:
        started = time.perf_counter()
        answer = await client.post(message, json=body)
        took.setdefault(what, []).append(time.perf_counter() - started)
        if answer.status_code >= 300:
            raise AssertionError(f"{message}: {answer.text[:500]}")
        return answer

    for _ in range(ROUNDS):
        started = time.perf_counter()
        solution = read(new)
        took.setdefault("read", []).append(time.perf_counter() - started)
        with tempfile.TemporaryDirectory() as folder:
            for what, packages in (("target", (old, new)), ("fresh", (new,)), ("development", (unmanaged,))):
                needed = _needed(solution) | _needed(read(old))
                path = Path(folder) / f"{what}.sqlite"
                with EmbeddedEnvironment.open(path, name=what, installed_apps=needed) as environment:
                    transport = httpx.ASGITransport(environment.app)
                    async with httpx.AsyncClient(
                        transport=transport, base_url="http://environment/api/data/v9.2/", timeout=None
                    ) as client:
                        files = [base64.b64encode(package).decode() for package in packages]
                        if what == "target":
                            await timed("first", client, "ImportSolution", CustomizationFile=files[0])
                            await timed("stage", client, "StageSolution", CustomizationFile=files[1])
                            await timed("upgrade", client, "StageAndUpgrade", CustomizationFile=files[1])
                        elif what == "fresh":
                            await timed("import", client, "ImportSolution", CustomizationFile=files[0])
                        else:
                            await timed("unmanaged", client, "ImportSolution", CustomizationFile=files[0])
                            await timed("publish", client, "PublishAllXml")
                            await timed("export", client, "ExportSolution", SolutionName=name, Managed=True)
    count = len(solution.components)
    read_time = median(took["read"])
    figures = [Figure(f"read a package of {count:,} components", f"{read_time * 1e3:.1f} ms")]
    words = {
        "import": "import it",
        "upgrade": "upgrade to it",
        "stage": "stage it over an older version",
        "unmanaged": "import it unmanaged",
        "publish": "publish all of it",
        "export": "export it as managed",
    }
    for what, shown in words.items():
        what_it_took = f"{ratio(took[what], took['read']):.2f}× ({median(took[what]) * 1e3:.0f} ms)"
        figures.append(Figure(f"  {shown}, to reading it", what_it_took))
    return figures


def _needed(solution: Solution) -> dict[str, str]:
    """The solutions that a package names as what it needs, as if all were installed."""
    hints = (dependency.required.solution for dependency in solution.manifest.missing_dependencies)
    return {hint.partition(" (")[0]: "99.0.0.0" for hint in hints if "(" in hint}


def _built(version: str, tables: int) -> bytes:
    parts = [
        Table(f"bench_table{t}", tuple(Column(f"bench_column{t}_{c}") for c in range(24)))
        for t in range(tables)
    ]
    return write(new_manifest("Bench", version, managed=True), *parts)
