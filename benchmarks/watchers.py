"""A thousand watchers on one run, beside a bare broadcast of the same bytes to as many streams."""

from __future__ import annotations

import selectors
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median

import psutil
from tests.e2e.processes import HostProcess

from benchmarks.bare import Bare, running
from benchmarks.figures import Figure, cpu, in_turn, ratio
from benchmarks.http2 import Connection, one, spread
from benchmarks.unary import SERVICE, furnish
from pipelinehost.v1.pipeline_host_pb2 import CancelRunRequest, WatchRunRequest, WatchRunResponse

WATCHERS = 1_000
EACH = 90
ROUNDS = 5
KIBIBYTES = 40.0


def measure() -> Iterator[Figure]:
    """How soon the last of them has the news, and what one costs in memory."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bare, host = Bare(folder / "bare", "rpc"), HostProcess(folder / "host", "--advancing", "0")
        with running(bare, host), host.client() as client:
            artifact = furnish(client, folder)
            token = (host.data / "admin-token").read_text().strip()
            runs = iter([client.deploy("sales-00", artifact=artifact).name for _ in range(ROUNDS + 2)])
            grown: list[float] = []
            burst: dict[str, list[float]] = {"ours": [], "bare": []}
            news: list[bytes] = []

            def ours() -> float:
                """A run is cancelled: its watchers get the event, then the finished run, then the end."""
                run = next(runs)
                watch = WatchRunRequest(name=run).SerializeToString()
                memory = psutil.Process(host.pid).memory_info().rss
                watching = spread(host.address, f"{SERVICE}/WatchRun", token, [watch] * WATCHERS, EACH)
                first = gather(watching, WATCHERS)
                time.sleep(0.5)
                grown.append((psutil.Process(host.pid).memory_info().rss - memory) / WATCHERS / 1024)
                before = cpu(host.pid)
                begun = time.perf_counter()
                one(
                    Connection(host.address, f"{SERVICE}/CancelRun", token),
                    CancelRunRequest(name=run).SerializeToString(),
                )
                got = gather(watching, WATCHERS)
                elapsed = time.perf_counter() - begun
                burst["ours"].append(cpu(host.pid) - before)
                news[:] = [first[0], got[0]]
                check(first, got, run)
                for connection in watching:
                    connection.close()
                return elapsed

            def broadcast() -> float:
                """The same bytes, told by one call."""
                one(Connection(bare.address, "/bare/Keep"), news[0])
                watching = spread(bare.address, "/bare/Follow", token, [b"\x08\x01"] * WATCHERS, EACH)
                gather(watching, WATCHERS)
                time.sleep(0.5)
                before = cpu(bare.pid)
                begun = time.perf_counter()
                one(Connection(bare.address, "/bare/Tell", token), news[1])
                gather(watching, WATCHERS)
                elapsed = time.perf_counter() - begun
                burst["bare"].append(cpu(bare.pid) - before)
                for connection in watching:
                    connection.close()
                return elapsed

            ours(), broadcast()
            grown_at_first = grown.pop()
            found = in_turn(ROUNDS, {"ours": ours, "bare": broadcast})
            yield Figure.at_most(
                f"{WATCHERS:,} watchers: an event at the last of them, of a bare broadcast",
                ratio(found["ours"], found["bare"]),
                3.0,
            )
            yield Figure.at_most(
                f"{WATCHERS:,} watchers: memory of the host for each",
                max(grown_at_first, *grown),
                KIBIBYTES,
                " KiB",
            )
            yield Figure(
                "watchers: from the call to the last",
                f"{median(found['ours']) * 1e3:.0f} ms; bare {median(found['bare']) * 1e3:.0f} ms; processor "
                f"{median(burst['ours'][1:]) * 1e3:.0f} ms (with the end of each stream), bare "
                f"{median(burst['bare'][1:]) * 1e3:.0f} ms",
            )


def gather(connections: Sequence[Connection], count: int) -> list[bytes]:
    """The first message of each stream that comes from now on; returns when so many streams have one."""
    found: dict[tuple[Connection, int], bytes] = {}
    with selectors.DefaultSelector() as selector:
        for connection in connections:
            selector.register(connection.socket, selectors.EVENT_READ, connection)
        while len(found) < count:
            for key, _ in selector.select(60):
                for stream, message in key.data.receive():
                    if message is not None:
                        found.setdefault((key.data, stream), message)
    return list(found.values())


def check(first: Sequence[bytes], news: Sequence[bytes], run: str) -> None:
    """That all got what they should.

    Raises:
        AssertionError: a watcher got something else.
    """
    begun = [WatchRunResponse.FromString(message) for message in first]
    told = [WatchRunResponse.FromString(message) for message in news]
    if not all(r.run.name == run for r in begun) or not all(r.event.subject == run for r in told):
        raise AssertionError("a watcher got something else than the run and then its event")
