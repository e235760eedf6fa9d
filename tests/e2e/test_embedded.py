"""The process that embedded environments live in: what it survives, and that it is gone when the host is."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import httpx
import psutil
import pytest
from tests.crash import checks
from tests.crash.record import Record
from tests.e2e.processes import EmulatorProcess, HostProcess

from pipelinehost import Client
from pipelinehost.errors import Unavailable
from pipelinehost.v1.resources_pb2 import Environment, Pipeline, Run, Stage, Step
from pipelinehost_dataverse.solution import Column, Table, new_manifest, write

SECONDS = 60.0


class Host(HostProcess):
    """A host whose sockets lie in a folder that the test can look into."""

    def __init__(self, folder: Path, *options: str) -> None:
        super().__init__(folder, *options)
        self.sockets = Path("/tmp", f"ph-test-{os.getpid()}-{folder.name[-20:]}")  # tmp_path is too long
        self.sockets.mkdir(exist_ok=True)

    def environ(self) -> dict[str, str]:
        return {**super().environ(), "TMPDIR": str(self.sockets)}

    def beside(self) -> psutil.Process:
        """The one process that it has started."""
        [found] = psutil.Process(self.pid).children(recursive=True)
        return found

    def close(self) -> None:
        self.kill()
        shutil.rmtree(self.sockets, ignore_errors=True)


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    host = Host(tmp_path / "host", "--embedded-pace", "2")
    host.start()
    yield host
    host.close()
    record = Record()
    checks.logs(record, host.folder)
    assert record.violations == []


def gone(process: psutil.Process) -> bool:
    """And no zombie either."""
    return not process.is_running()


def until(reached: Callable[[], bool], seconds: float = 10) -> None:
    begun = time.monotonic()
    while not reached():
        assert time.monotonic() - begun < seconds
        time.sleep(0.01)


def configure(client: Client, folder: Path, *names: str) -> str:
    """Targets, a pipeline of all of them, and a package; gives the artifact."""
    for name in names:
        kind = Environment.KIND_TARGET
        client.create_environment(Environment(name=f"environments/{name}", kind=kind))
    stages = [Stage(name=f"pipelines/sales/stages/{n}", environment=f"environments/{n}") for n in names[:7]]
    client.create_pipeline(Pipeline(name="pipelines/sales", stages=stages))
    package = folder / "package.zip"
    table = Table("cts_order", (Column("cts_total"),))
    package.write_bytes(write(new_manifest("Sales", "1.0.0.0", managed=True), table))
    return client.upload(package).name


def importing(client: Client, artifact: str) -> str:
    """A run in the middle of its import."""
    name = client.deploy("sales", artifact=artifact).name

    def begun() -> bool:
        steps = [s for s in client.run(name).steps if s.kind == Step.KIND_IMPORT]
        return bool(steps) and steps[0].percent > 0

    until(begun, SECONDS)
    return name


def history(host: HostProcess, name: str, folder: Path) -> list[str]:
    """What the environment itself says it has imported, asked when its host is gone."""
    emulator = EmulatorProcess(folder / "later", name)
    shutil.copytree(host.data / "environments", emulator.folder / "environments", dirs_exist_ok=True)
    emulator.start()
    try:
        rows = httpx.get(f"{emulator.url(name)}/api/data/v9.2/msdyn_solutionhistories").json()["value"]
    finally:
        emulator.stop()
    return [row["msdyn_solutionversion"] for row in rows if row["msdyn_name"] == "Sales"]


def test_killed_in_the_middle_of_an_import_it_starts_again_and_the_run_succeeds(
    host: Host, tmp_path: Path
) -> None:
    with host.client() as client:
        name = importing(client, configure(client, tmp_path, "qa"))
        first = host.beside()
        descriptors = psutil.Process(host.pid).num_fds()
        for _ in range(2):
            killed = host.beside()
            killed.kill()
            until(partial(gone, killed))
            until(lambda: len(psutil.Process(host.pid).children()) == 1)
        run = client.wait(name, timeout=SECONDS)
        assert run.state == Run.STATE_SUCCEEDED, run
        assert host.beside().pid != first.pid
        assert psutil.Process(host.pid).num_fds() <= descriptors + 1
    assert host.stop() == 0
    assert history(host, "qa", tmp_path) == ["1.0.0.0"]
    assert "ended with -9: it starts again" in (host.folder / "log").read_text()


def test_killed_before_it_has_opened_an_environment_it_starts_again(host: Host, tmp_path: Path) -> None:
    with host.client() as client:
        configure(client, tmp_path, "qa")
    host.stop()
    host.start()
    with host.client() as client, ThreadPoolExecutor(1) as pool:
        health = pool.submit(client.check, "qa")
        until(lambda: len(psutil.Process(host.pid).children()) == 1)
        first = host.beside()
        first.kill()
        assert health.result(SECONDS).reachable
        assert host.beside().pid != first.pid


def test_an_environment_that_is_first_asked_while_it_pauses_is_waited_for(host: Host, tmp_path: Path) -> None:
    with host.client() as client:
        configure(client, tmp_path, "qa", "prod")
    host.stop()
    host.start()
    with host.client() as client:
        for _ in range(2):
            assert client.check("qa").reachable
            killed = host.beside()
            killed.kill()
            until(partial(gone, killed))
        assert client.check("prod").reachable
    assert "it starts again in 1 s" in (host.folder / "log").read_text()


def test_it_ends_with_a_host_that_is_killed_and_the_next_one_goes_on_at_once(
    host: Host, tmp_path: Path
) -> None:
    with host.client() as client:
        name = importing(client, configure(client, tmp_path, "qa"))
    beside = host.beside()
    host.kill()
    host.start()
    with host.client() as client:
        client.solutions("qa")
        assert client.wait(name, timeout=SECONDS).state == Run.STATE_SUCCEEDED
    assert not beside.is_running()
    assert host.stop() == 0
    assert history(host, "qa", tmp_path) == ["1.0.0.0"]
    assert list(host.sockets.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_it_is_gone_soon_after_the_host(host: Host, tmp_path: Path, number: int) -> None:
    with host.client() as client:
        importing(client, configure(client, tmp_path, "qa"))
    beside = host.beside()
    host._end(number)
    until(partial(gone, beside))
    until(lambda: list(host.sockets.iterdir()) == [])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_all_of_them_lets_the_host_drain_first(host: Host, tmp_path: Path, number: int) -> None:
    """As Ctrl-C in a terminal, or a supervisor that signals every process of a service."""
    with host.client() as client:
        name = importing(client, configure(client, tmp_path, "qa"))
        beside = host.beside()
        beside.send_signal(number)
        time.sleep(0.3)
        assert host.beside() == beside
        assert client.wait(name, timeout=SECONDS).state == Run.STATE_SUCCEEDED
    assert os.getpgid(beside.pid) != os.getpgid(host.pid), "Ctrl-C goes to a whole group"
    beside.send_signal(number)
    assert host._end(number) == 0
    assert not beside.is_running()
    assert not list((host.data / "environments").glob("*-wal")), "they were closed in order"


def test_only_this_user_can_reach_it(host: Host, tmp_path: Path) -> None:
    with host.client() as client:
        configure(client, tmp_path, "qa")
    [folder] = host.sockets.iterdir()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert not host.beside().net_connections("inet")


def test_a_data_folder_with_a_long_path_twenty_environments_and_a_host_beside(tmp_path: Path) -> None:
    hosts = [Host(tmp_path / ("f" * 120) / name) for name in ("one", "two")]
    try:
        for host in hosts:
            host.start()
        for host in hosts:
            with host.client() as client:
                names = [f"qa-{number}" for number in range(20)]
                artifact = configure(client, tmp_path, *names)
                run = client.deploy("sales", artifact=artifact)
                with ThreadPoolExecutor(20) as pool:
                    assert len({health.organization_id for health in pool.map(client.check, names)}) == 20
                assert client.wait(run.name, timeout=SECONDS).state == Run.STATE_SUCCEEDED
                assert len(psutil.Process(host.pid).children(recursive=True)) == 1
        assert [host.stop() for host in hosts] == [0, 0]
    finally:
        for host in hosts:
            host.close()


def test_where_no_socket_can_be_the_environment_is_unreachable_and_the_remedy_is_told(tmp_path: Path) -> None:
    host = Host(tmp_path / "host")
    shutil.rmtree(host.sockets)
    host.sockets = tmp_path / ("s" * 120)
    host.sockets.mkdir()
    host.start()
    try:
        with host.client() as client, pytest.raises(Unavailable, match=r"too long.*TMPDIR"):
            client.create_environment(Environment(name="environments/qa", kind=Environment.KIND_TARGET))
        assert host.stop() == 0
    finally:
        host.close()


def test_nothing_of_it_is_loaded_by_the_host() -> None:
    """What the emulator needs costs a third of a second, which a host without embedded environments saves."""
    code = "import sys, pipelinehost_server.app; print({'starlette', 'uvicorn'} & sys.modules.keys())"
    told = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert told.stdout == "set()\n"


def test_a_file_that_somebody_holds_is_waited_for_a_while(host: Host, tmp_path: Path) -> None:
    """As the process of a host that was killed a moment ago may; or somebody's emulator, for long."""
    with host.client() as client:
        configure(client, tmp_path, "qa")
    host.stop()
    with (host.data / "environments" / "qa.sqlite.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        host.start()
        with host.client() as client:
            [finding] = client.check("qa").findings
            assert (finding.code, "open already, by another" in finding.cause) == (
                "ENVIRONMENT_UNREACHABLE",
                True,
            )
            threading.Timer(1.5, fcntl.flock, (held, fcntl.LOCK_UN)).start()
            assert client.check("qa").reachable
