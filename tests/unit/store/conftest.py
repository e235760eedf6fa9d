"""A store on a real disk, and the messages that its tests put there."""

import sqlite3
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from pipelinehost.v1.resources_pb2 import Event, Run
from pipelinehost_server.store import Store


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    store = Store(tmp_path)
    await store.open()
    yield store
    await store.close()


@pytest.fixture
def make_run() -> Callable[..., Run]:
    """Runs with names in order; fields can be given."""
    count = 0

    def make(**fields: object) -> Run:
        nonlocal count
        count += 1
        values: dict[str, object] = {
            "name": f"runs/{count:026d}",
            "state": Run.STATE_QUEUED,
            "pipeline": "pipelines/sales",
            "stage": "pipelines/sales/stages/qa",
            "solution": "Sales",
            "source_environment": "environments/dev",
            "target_environment": "environments/qa",
            "requester": "ada",
        }
        return Run(**(values | fields))  # type: ignore[arg-type]  # the tests know the fields

    return make


@pytest.fixture
def note() -> Callable[[str], Event]:
    """Events that are told apart by their words."""
    return lambda words: Event(kind=Event.KIND_RUN_STATE_CHANGED, actor="ada", message=words)


@pytest.fixture
def peek(tmp_path: Path) -> Callable[..., list[tuple[object, ...]]]:
    """Asks the file itself, through a connection of its own."""

    def ask(sql: str, *values: object, folder: Path = tmp_path) -> list[tuple[object, ...]]:
        connection = sqlite3.connect(f"{(folder / 'pipelinehost.db').as_uri()}?mode=ro", uri=True)
        try:
            return connection.execute(sql, values).fetchall()
        finally:
            connection.close()

    return ask


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 4 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk)]
    try:
        mounted = subprocess.run(mount, capture_output=True, text=True, timeout=10, check=False)
    except OSError as error:
        pytest.skip(f"no small disk can be made here: {error}")
    if mounted.returncode != 0:
        pytest.skip(f"no small disk can be made here: {mounted.stderr.strip()}")
    yield disk
    subprocess.run(
        ["umount", "--lazy", str(disk)], timeout=10, check=True
    )  # a failed test may keep a file open
