"""The Client with very many watches: thousands at once from several processes, and hundreds on one Client."""

from __future__ import annotations

import multiprocessing
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from multiprocessing.connection import Connection as Pipe
from pathlib import Path

from tests.e2e.processes import HostProcess

from benchmarks.bare import running
from benchmarks.figures import Figure
from benchmarks.unary import furnish
from pipelinehost import Client, PipelineHostError

WATCHES = 5_000
PROCESSES = 10
ON_ONE_CLIENT = 250
WAIT_SECONDS = 1.0


def measure() -> Iterator[Figure]:
    """5,000 watches at once, then 250 and a GetRun."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        host = HostProcess(folder / "host", "--advancing", "0")
        with running(host), host.client() as client:
            artifact = furnish(client, folder)
            run = client.deploy("sales-00", artifact=artifact).name
            token = (host.data / "admin-token").read_text().strip()
            yield from _at_once(host, token, run)
            yield from _on_one_client(host, run)


def _at_once(host: HostProcess, token: str, run: str) -> Iterator[Figure]:
    spawn = multiprocessing.get_context("spawn")
    each = WATCHES // PROCESSES
    pipes, children = [], []
    for _ in range(PROCESSES):
        here, there = spawn.Pipe()
        child = spawn.Process(target=_watchers, args=(there, host.address, token, run, each), daemon=True)
        child.start()
        pipes.append(here)
        children.append(child)
    for pipe in pipes:
        pipe.recv()  # it is up
    begun = time.perf_counter()
    for pipe in pipes:
        pipe.send("go")
    opened = [pipe.recv() for pipe in pipes]
    elapsed = time.perf_counter() - begun
    with host.client() as client:
        client.cancel(run)
    ended = [pipe.recv() for pipe in pipes]
    for child in children:
        child.join(30)
    errors = sum(failed for _, failed in ended)
    interruptions = sum(broken for broken, _ in ended)
    finished = sum(opened)
    yield Figure.at_most(
        f"{WATCHES:,} watches at once through {PROCESSES} Clients: errors",
        errors + (WATCHES - finished) + interruptions,
        0,
        "",
    )
    yield Figure(
        "watches at once: all have the run",
        f"after {elapsed:.1f} s; {interruptions} were cut off and resumed, {errors} failed",
    )


def _watchers(pipe: Pipe, address: str, token: str, run: str, count: int) -> None:
    """One process: opens its watches when told, says how many have the run, and how all of them ended."""
    threading.stack_size(256 * 1024)
    lock = threading.Lock()
    begun = threading.Semaphore(0)
    failed = broken = have = 0

    def interrupted(_error: PipelineHostError) -> None:
        nonlocal broken
        with lock:
            broken += 1

    def watch() -> None:
        nonlocal failed, have
        first = True
        try:
            for _ in client.watch(run, timeout=120, on_interruption=interrupted):
                if first:
                    first = False
                    with lock:
                        have += 1
                    begun.release()
        except PipelineHostError:
            with lock:
                failed += 1
            begun.release()

    with Client(address, token=token) as client:
        client.run(run)
        threads = [threading.Thread(target=watch) for _ in range(count)]
        pipe.send("up")
        pipe.recv()
        for thread in threads:
            thread.start()
        for _ in threads:
            begun.acquire()
        pipe.send(have)
        for thread in threads:
            thread.join()
        pipe.send((broken, failed))


def _on_one_client(host: HostProcess, finished: str) -> Iterator[Figure]:
    with host.client() as client:
        run = client.deploy("sales-01", artifact=client.run(finished).artifact).name
        begun = threading.Semaphore(0)

        def watch() -> None:
            with closing(client.watch(run)) as updates:
                next(updates)
                begun.release()
                for _ in updates:
                    pass

        threads = [threading.Thread(target=watch) for _ in range(ON_ONE_CLIENT)]
        at = time.perf_counter()
        for thread in threads:
            thread.start()
        for _ in threads:
            if not begun.acquire(timeout=60):
                raise AssertionError("a watch on a Client waits for another one to end")
        opened = time.perf_counter() - at
        waits = []
        for _ in range(20):
            at = time.perf_counter()
            client.run(run)
            waits.append(time.perf_counter() - at)
        client.cancel(run)
        for thread in threads:
            thread.join()
    yield Figure.at_most(
        f"{ON_ONE_CLIENT} watches on one Client: longest of 20 GetRun", max(waits), WAIT_SECONDS, " s"
    )
    yield Figure("watches on one Client: all have the run", f"after {opened:.2f} s")
