"""The storm: clients at work, and kill -9 at random moments."""

from __future__ import annotations

import contextlib
import os
import random
import re
import shutil
import socket
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
from tests.crash import checks, governance
from tests.crash.freezing import Freezer
from tests.crash.lane import Lane
from tests.crash.lookout import VALIDATED, Lookout
from tests.crash.record import INSIDE, OUTSIDE, Record, Sent
from tests.crash.world import APPROVERS, DAY, DEVELOPMENT, TARGETS, Clock, World, configure
from tests.e2e.processes import EmulatorProcess, HostProcess
from tests.e2e.proxy import Proxy

from pipelinehost import Client
from pipelinehost.errors import PipelineHostError, Unauthenticated
from pipelinehost.v1.resources_pb2 import Freeze, GateStatus, Run, Step

LANES = 6
STUCK_SECONDS = 5.0
_IMPORT = re.compile(r"POST .*/(ImportSolutionAsync|StageAndUpgradeAsync)$")
_LOOK = re.compile(r"GET .*/importjobs$")
"""The last question before an import is sent."""
_VALIDATED = re.compile(r"DELETE /[a-z]*-(qa-gated|qa-hasty|production)/.*/stagesolutionuploads")
"""The last request of a validation, where a gate comes next; that is open within milliseconds."""
_JUMPS = (-400, 0, 400)
"""Days by which the host's clock is wrong after a restart."""
_SEASON = 200
"""Days for which a token is good."""
_HOOK = Path(__file__).with_name("clock")


@dataclass(frozen=True)
class Result:
    """How a storm ended."""

    seed: int
    seconds: float
    record: Record
    facts: dict[str, object]

    @property
    def violations(self) -> list[str]:
        """What must not be; empty if all is well."""
        return self.record.violations


class _Host(HostProcess):
    """A host that can be killed before it is ready, and whose clock can be put forward or back."""

    clock = Clock()

    def environ(self) -> dict[str, str]:
        variables = super().environ()
        if not self.clock.days:
            return variables
        path = os.pathsep.join([str(_HOOK), *filter(None, [variables.get("PYTHONPATH")])])
        return {**variables, "PYTHONPATH": path, "CRASH_CLOCK_SECONDS": str(self.clock.days * DAY)}

    def shoot(self) -> None:
        """Kill it while another thread waits for it."""
        while self._popen is None:
            time.sleep(0.001)
        self._popen.kill()


class Storm:
    """A host, its environments, clients at work, and what kills them.

    Args:
        folder: for everything.
        kills: kill -9 of the host.
        seed: the same seed makes the same choices; what they hit depends on the machine.
        pace: seconds that an import takes at least.
        jumps: whether the host's clock is 400 days ahead, or behind, after some restarts.
        patience: seconds after which a call or a run that has not come to its end is given up.
        say: told now and then how far it is.
    """

    def __init__(
        self,
        folder: Path,
        kills: int,
        seed: int,
        *,
        pace: float = 0.3,
        jumps: bool = False,
        patience: float = 180.0,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        self._folder = folder
        self._kills = kills
        self._seed = seed
        self._say = say
        self._patience = patience
        self._random = random.Random(seed)
        self._wind = random.Random(f"{seed}/wind")
        self._record = Record()
        self._over = threading.Event()
        self._ready_seconds = 0.8
        self._environments_down = False
        self._world = World(Clock(jumps=jumps), {})
        self._looked: dict[str, int] = {}
        self._arming = threading.Lock()
        self._armed: float | None = None
        """Seconds after the next validation that the host is shot."""
        self._shot: threading.Timer | None = None
        self._host = _Host(folder / "host", "--embedded-pace", str(pace))
        self._host.clock = self._world.clock
        self._environments = EmulatorProcess(
            folder / "outside",
            *(f"{OUTSIDE}-{name}" for name in (*DEVELOPMENT, *TARGETS)),
            options=("--pace", str(pace), "--allow-downgrade"),
        )
        self._proxy = Proxy(self._weather)
        # Fixed, so that clients find them again; below the range that the system gives to connections,
        # which would take a port while nobody listens on it.
        self._host.address, self._environments.address = (f"127.0.0.1:{_free_port()}" for _ in range(2))

    def run(self) -> Result:
        """Work, kill, and judge."""
        begun = time.monotonic()
        try:
            self._environments.start()
            self._proxy.target = self._environments.address
            self._host.start()
            with self._host.client() as client, ExitStack() as opened:
                names = [f"{OUTSIDE}-{name}" for name in (*DEVELOPMENT, *TARGETS)]
                configure(client, {name: self._proxy.url(name) for name in names})
                token = (self._host.data / "admin-token").read_text().strip()

                def connected(token: str) -> Client:
                    return opened.enter_context(Client(self._host.address, token=token))

                self._world.approvers.update(
                    {name: connected(client.create_token(name).secret) for name in APPROVERS}
                )
                ends = datetime.now(UTC) + timedelta(days=_SEASON)
                self._seasonal = connected(client.create_token("ann", expires=ends).secret)
                freezer = Freezer(self._seed, connected(token), self._record, self._world.clock)
                self._lookout = Lookout(connected(token), freezer.urgent)
                lanes = self._lanes([connected(token) for _ in range(LANES)])
                for thread in (*lanes, freezer, self._lookout):
                    thread.start()
                self._storm(client)
                self._over.set()
                for lane in lanes:
                    lane.join(2 * self._patience)
                    if lane.is_alive():
                        self._record.violated(f"{lane.name} does not come to an end")
                freezer.stop()
                self._stuck(client)
                facts = self._judge(client)
            self._lookout.join(self._patience)
            if self._lookout.is_alive():
                self._record.violated("the lookout goes on with a client that is closed")
        finally:
            self._host.kill()
            self._environments.kill()
            self._proxy.close()
        return Result(self._seed, time.monotonic() - begun, self._record, facts)

    def _lanes(self, clients: list[Client]) -> list[Lane]:
        packages = self._folder / "packages"
        packages.mkdir()
        names = [f"{OUTSIDE}-{name}" for name in (*DEVELOPMENT, *TARGETS)]
        urls = {name: self._environments.url(name) for name in names}
        quota = max(self._kills // 3, LANES)

        def enough() -> bool:
            return self._over.is_set() and len(self._record.asked) >= quota

        return [
            Lane(
                number, self._seed, client, self._world, urls, self._record, packages, enough, self._patience
            )
            for number, client in enumerate(clients)
        ]

    def _weather(self, when: str, what: str) -> float | None:
        """The way outside takes time where it counts, and now and then loses an answer."""
        environment = what.split("/")[1]
        if when == "after" and _LOOK.search(what):
            # Now and then long enough for something to happen between this answer and the import.
            seconds = self._wind.uniform(0.2, 0.8) if self._wind.random() < 0.3 else 0.0
            self._looked[environment] = time.time_ns() + int(seconds * 10**9)
            return seconds
        if when == "after" and _VALIDATED.search(what):
            with self._arming:
                armed, self._armed = self._armed, None
                if armed is not None:
                    self._shot = threading.Timer(armed, self._host.shoot)
                    self._shot.start()
                    self._lookout.saw(VALIDATED)
        if not _IMPORT.search(what):
            return 0.0
        if when == "before":
            looked = self._looked.get(environment, 0)
            self._record.send(Sent(environment, looked, time.time_ns(), self._world.clock.shift))
        if when == "after" and self._wind.random() < 0.1:
            self._record.count("lost answers to imports")
            return None
        # Some are still on their way when the host is back; all arrive within its quiet period of 2 s.
        return self._wind.uniform(0.0, 1.2 if self._wind.random() < 0.3 else 0.3)

    # Killing.

    def _storm(self, client: Client) -> None:
        for number in range(1, self._kills + 1):
            fate = self._random.random()
            if number % 30 == 0 or number == self._kills:
                self._stuck(client)
            elif fate < 0.4:  # right after something has happened, if it happens soon
                most = self._random.sample(Lookout.ALL, 4)
                awaited = self._random.choice(([VALIDATED], most))
                seconds = self._random.uniform(0.0, 0.04)
                if VALIDATED in awaited:
                    self._armed = seconds
                if happened := self._lookout.happens(awaited, 1.5):
                    self._record.count(f"kills right after {happened}")
                    time.sleep(seconds)
                with self._arming:
                    shot, self._armed, self._shot = self._shot, None, None
                if shot is not None:
                    shot.join()
            elif fate < 0.5:
                time.sleep(self._random.uniform(0.0, 0.3))
            elif fate < 0.85:
                time.sleep(self._random.uniform(0.3, 1.2))
            else:
                time.sleep(self._random.uniform(1.2, 2.5))
            also = self._random.random()
            if also < 0.05:
                self._kill_environments()
                self._kill_host()
            elif also < 0.12:
                self._kill_environments()
                time.sleep(self._random.uniform(0.0, 0.3))
                self._start_environments()
                time.sleep(self._random.uniform(0.0, 0.8))
                self._kill_host()
            elif also < 0.3:
                self._kill_beside()
                time.sleep(self._random.uniform(0.0, 0.8))
                self._kill_host()
            else:
                self._kill_host()
            self._restart()
            if number % 20 == 0:
                self._say(f"{number} kills, {len(self._record.asked)} runs accepted")

    def _kill_host(self) -> None:
        self._host.kill()
        self._record.count("kills of the host")
        for what in self._under_way():
            self._record.kills[what] += 1

    def _kill_environments(self) -> None:
        self._environments.kill()
        self._environments_down = True
        self._record.count("kills of the environments' process")

    def _kill_beside(self) -> None:
        for process in psutil.Process(self._host.pid).children():
            process.kill()
            self._record.count("kills of the process beside the host")

    def _restart(self) -> None:
        """Start what was killed; now and then the host is killed again before it is ready."""
        first = self._random.random() < 0.5
        if first:
            self._start_environments()
        while self._random.random() < 0.1:
            starting = threading.Thread(target=self._start_in_vain)
            starting.start()
            time.sleep(self._random.uniform(0.0, 1.2 * self._ready_seconds))
            self._host.shoot()
            starting.join()
            self._host.kill()
            self._record.count("kills of the host while it started")
        self._jump()
        self._ready_seconds = self._host.start()
        if not first:
            self._start_environments()
        if self._world.clock.jumps:
            self._season()

    def _jump(self) -> None:
        clock = self._world.clock
        if clock.jumps and self._random.random() < 0.6:
            clock.days = self._random.choice([days for days in _JUMPS if days != clock.days])
            self._record.count(f"jumps of the clock to {clock.days:+} days")

    def _season(self) -> None:
        """A token is good until it expires by the host's clock, and again when that is put back."""
        good = self._world.clock.days < _SEASON
        try:
            self._seasonal.host()
        except Unauthenticated:
            if good:
                self._record.violated(f"at {self._world.clock.days:+} days a good token was refused")
        except PipelineHostError as error:
            self._record.violated(f"the host does not answer after a restart: {error!r}")
        else:
            if not good:
                self._record.violated(f"at {self._world.clock.days:+} days an expired token was taken")

    def _start_in_vain(self) -> None:
        with contextlib.suppress(AssertionError):  # it was killed before it said that it was ready
            self._host.start()

    def _start_environments(self) -> None:
        if self._environments_down:
            self._environments.start()
            self._environments_down = False

    def _under_way(self) -> list[str]:
        """What the killed host was doing, from a copy of its store; checks that the store is whole."""
        copy = self._folder / "copy.db"
        for ending in ("", "-wal"):
            with contextlib.suppress(FileNotFoundError):
                shutil.copyfile(f"{self._host.data / 'pipelinehost.db'}{ending}", f"{copy}{ending}")
        with contextlib.closing(sqlite3.connect(copy)) as database:
            for problem in checks.integrity(database):
                self._record.violated(f"the store after a kill: {problem}")
            runs = checks.runs(database, "state < 9")
            noted = set(database.execute("SELECT run, step FROM output"))
        for path in self._folder.glob("copy.db*"):
            path.unlink()
        return sorted(_doing(run, noted) for run in runs) or ["nothing"]

    def _stuck(self, client: Client) -> None:
        """No unfinished run may stand still for so long, unless it waits for its target."""
        time.sleep(0.5)  # what became ready this moment takes its runs up
        try:
            before = {r.name: r for r in client.runs(checks.UNFINISHED)}
        except PipelineHostError as error:
            self._record.violated(f"the host does not answer after a restart: {error!r}")
            return
        self._record.count("looks for runs that stand still")
        freezes, then = list(client.freezes()), self._world.clock.now()
        # Where the machine is so busy that a host takes long to start, environments take longer, too.
        seconds = STUCK_SECONDS * max(1.0, self._ready_seconds / 2)
        time.sleep(seconds)
        lasting = [f for f in client.freezes() if f in freezes]
        for name, run in before.items():
            now = client.run(name)
            if now.state in (Run.STATE_WAITING_FOR_TARGET, *checks.FINISHED) or _waits(run, lasting, then):
                continue
            # To ask an environment outside again, to wait whether an import arrives late, and the weather on
            # its way take as long together, and none of it is told.
            if _asks_outside(now) and now.revision == run.revision:
                time.sleep(2 * seconds)
                now = client.run(name)
            if (now.revision, now.state) == (run.revision, run.state):
                where = Run.State.Name(now.state), [Step.State.Name(s.state) for s in now.steps]
                self._record.violated(f"{name} stood still for {seconds:.1f} s after a restart: {where}")

    def _judge(self, client: Client) -> dict[str, object]:
        """Everything that must hold, once all clients have what they asked for."""
        for problem in checks.leftovers(self._host.data):
            self._record.violated(problem)
        if (verified := list(client.verify_events())[-1].result).HasField("fault"):
            self._record.violated(f"the host finds its record broken: {verified}")
        runs = {run.name: run for run in client.runs()}
        if (code := self._host.stop()) != 0:
            self._record.violated(f"the host stopped with exit code {code}")
        inside = EmulatorProcess(self._host.data, *(f"{INSIDE}-{name}" for name in (*DEVELOPMENT, *TARGETS)))
        inside.start()
        try:
            urls = {
                f"environments/{side}-{name}": where.url(f"{side}-{name}")
                for side, where in ((INSIDE, inside), (OUTSIDE, self._environments))
                for name in (*DEVELOPMENT, *TARGETS)
            }
            imports = checks.imports(self._record, runs, urls, one_clock=not self._world.clock.jumps)
        finally:
            inside.stop()
        self._environments.stop()
        for folder in (self._host.data, self._environments.folder):
            for path in sorted((folder / "environments").glob("*.sqlite")):
                with contextlib.closing(sqlite3.connect(path)) as database:
                    for problem in checks.integrity(database):
                        self._record.violated(f"{path.name}: {problem}")
        with contextlib.closing(sqlite3.connect(self._host.data / "pipelinehost.db")) as database:
            facts = checks.store(self._record, runs, database)
            facts |= governance.check(self._record, runs, database)
        checks.artifacts(self._record, self._host.data)
        checks.logs(self._record, self._host.folder, self._environments.folder)
        return {**facts, "imports in the environments' history": imports}


def _waits(run: Run, freezes: list[Freeze], now: int) -> bool:
    """Whether a run has a reason to stand still: a gate, its time, or a freeze that lasts."""
    if run.state == Run.STATE_AWAITING_GATE:
        waiting = [s for s in run.gates if s.state == GateStatus.STATE_WAITING]
        return bool(waiting) and now < waiting[0].expire_time.ToNanoseconds()
    if run.state != Run.STATE_SCHEDULED:
        return False
    if run.HasField("schedule_time") and now < run.schedule_time.ToNanoseconds():
        return True
    return any(governance.concerns(f.scope, run.stage) and governance.in_force(f, now) for f in freezes)


def _asks_outside(run: Run) -> bool:
    """Whether a run finds out what became of its import in an environment that may have been killed."""
    importing = any(s.kind == Step.KIND_IMPORT and s.state == Step.STATE_RUNNING for s in run.steps)
    return importing and OUTSIDE in run.target_environment


def _doing(run: Run, noted: set[tuple[str, str]]) -> str:
    side = OUTSIDE if OUTSIDE in run.target_environment else INSIDE
    running = next((s.kind for s in run.steps if s.state == Step.STATE_RUNNING), None)
    if running is None:
        return f"{side} {Run.State.Name(run.state).removeprefix('STATE_').lower()}"
    what = Step.Kind.Name(running).removeprefix("KIND_").lower()
    if running == Step.KIND_IMPORT:
        known = [key for key in ("intent", "operation") if (run.name, f"import.{key}") in noted]
        what += f", {known[-1] if known else 'nothing'} noted"
    return f"{side} {what}"


def _free_port() -> int:
    for _ in range(100):
        port = random.randrange(20_000, 32_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError("no free port")
