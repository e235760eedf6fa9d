"""A package of 95 MB going up, beside a bare socket that receives, hashes, writes and fsyncs the same."""

from __future__ import annotations

import hashlib
import random
import socket
import struct
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from tests.e2e.processes import HostProcess

from benchmarks.bare import CHUNK, Bare, running
from benchmarks.figures import Figure, cpu, in_turn, ratio
from pipelinehost_dataverse.solution import WebResource, new_manifest, read, write

MEGABYTES = 95
PARTS = 19
ROUNDS = 5
SHARE = 0.6
MEBIBYTES = 64.0


def measure() -> Iterator[Figure]:
    """Both in turn; then how much of it is the look at what the package is."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bare, host = Bare(folder / "bare", "socket"), HostProcess(folder / "host")
        with running(bare, host), host.client() as client:
            packages = iter([_package(folder, number) for number in range(ROUNDS + 1)])
            grown, spent = [], []

            def through_host() -> float:
                path = next(packages)
                used = cpu(host.pid)
                with _most_memory(host.pid) as more:
                    begun = time.perf_counter()
                    artifact = client.upload(path)
                    elapsed = time.perf_counter() - begun
                grown.append(more())
                spent.append(cpu(host.pid) - used)
                current.append(path)
                if artifact.size != path.stat().st_size:
                    raise AssertionError("another package was stored")
                return elapsed

            current: list[Path] = []
            through_host(), _send(bare.address, current[0])
            found = in_turn(ROUNDS, {"ours": through_host, "bare": lambda: _send(bare.address, current[0])})
            looks = [_timed(path) for path in current[:3]]
        size = current[0].stat().st_size
        yield Figure.at_least(
            f"upload of {size / 1e6:.0f} MB with hash and fsync, of a socket",
            ratio(found["bare"], found["ours"]),
            SHARE,
        )
        yield Figure.at_most("upload: more memory of the host at the peak", max(grown), MEBIBYTES, " MiB")
        yield Figure(
            "upload",
            f"{median(found['ours']):.2f} s (processor of the host {median(spent):.2f} s), socket "
            f"{median(found['bare']):.2f} s; reading the package alone {median(looks):.2f} s",
        )


def _package(folder: Path, seed: int) -> Path:
    """Incompressible web resources, every time others: an artifact that is known already costs less."""
    noise = random.Random(seed)
    path = folder / f"{seed}.zip"
    path.write_bytes(
        write(
            new_manifest(f"Large{seed}", "1.0.0.0", managed=True),
            *(
                WebResource(f"large_{part}.png", noise.randbytes(MEGABYTES * 1_000_000 // PARTS), type=5)
                for part in range(PARTS)
            ),
        )
    )
    return path


def _send(address: str, path: Path) -> float:
    """What the Client does without gRPC: hashes the file, sends it, waits for the digest."""
    host, _, port = address.rpartition(":")
    begun = time.perf_counter()
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").digest()
        size = file.tell()
        file.seek(0)
        with socket.create_connection((host, int(port)), timeout=60) as connection:
            connection.sendall(struct.pack(">Q", size))
            while chunk := file.read(CHUNK):
                connection.sendall(chunk)
            if connection.recv(32, socket.MSG_WAITALL) != digest:
                raise AssertionError("the socket received something else")
    return time.perf_counter() - begun


def _timed(path: Path) -> float:
    begun = time.perf_counter()
    read(path)
    return time.perf_counter() - begun


@contextmanager
def _most_memory(pid: int) -> Iterator[Callable[[], float]]:
    """Tells how many MiB of memory a process has had at most since the beginning of the block.

    Its own memory, ``RssAnon`` of proc(5): pages of a mapped file are the system's copy of the file, which is
    there for every file that has just been written.
    """
    status = Path(f"/proc/{pid}/status")

    def now() -> int:
        return next(int(line.split()[1]) for line in status.open() if line.startswith("RssAnon:"))

    before = most = now()
    over = threading.Event()

    def look() -> None:
        nonlocal most
        while not over.wait(0.003):
            most = max(most, now())

    looking = threading.Thread(target=look)
    looking.start()
    try:
        yield lambda: (most - before) / 1024
    finally:
        over.set()
        looking.join()
