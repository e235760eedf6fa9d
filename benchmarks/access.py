"""What deciding about a call costs: a maker of a group's pipeline, beside a host that decides nothing.

``python -m benchmarks.access serve …`` is that host: it identifies its callers and lets them do everything.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from statistics import median

from tests.e2e.processes import HostProcess

from benchmarks.bare import running
from benchmarks.figures import Figure, cpu, in_turn, ratio
from benchmarks.http2 import Connection, load, one
from benchmarks.unary import CONNECTIONS, IN_FLIGHT, SECONDS, SERVICE, furnish, new_deployment
from pipelinehost.v1.pipeline_host_pb2 import GetRunRequest
from pipelinehost.v1.resources_pb2 import Pipeline, Principal, Share

ROUNDS = 9
TARGET = 0.9


class Undecided(HostProcess):
    """A host without decisions."""

    def __init__(self, folder: Path, *options: str) -> None:
        super().__init__(folder, *options)
        self._arguments = ("-m", "benchmarks.access", *self._arguments[2:])


def measure() -> Iterator[Figure]:
    """GetRun and Deploy."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        deciding = HostProcess(folder / "deciding", "--advancing", "0")
        undecided = Undecided(folder / "undecided", "--advancing", "0")
        with running(deciding, undecided):
            hosts = {"deciding": deciding, "undecided": undecided}
            tokens, artifacts, runs = {}, {}, {}
            for which, host in hosts.items():
                tokens[which], artifacts[which], runs[which] = _team(host, folder)
            getting = {w: GetRunRequest(name=runs[w]).SerializeToString() for w in hosts}
            yield from _compare("GetRun", hosts, tokens, {w: partial(getting.__getitem__, w) for w in hosts})
            deploying = {w: new_deployment(artifacts[w]) for w in hosts}
            yield from _compare("Deploy", hosts, tokens, deploying)


def _team(host: HostProcess, folder: Path) -> tuple[str, str, str]:
    """A maker in two of 20 groups, one of which may run the pipeline: token, artifact and a run of theirs."""
    with host.client() as client:
        artifact = furnish(client, folder)
        ada = Principal(name="principals/ada", kind=Principal.KIND_PERSON, role=Principal.ROLE_MAKER)
        client.create_principal(ada)
        for number in range(20):
            members = [ada.name] if number in {3, 7} else []
            client.create_principal(
                Principal(name=f"principals/team-{number}", kind=Principal.KIND_GROUP, members=members)
            )
        shares = [
            Share(principal=f"principals/team-{number}", access=Share.ACCESS_RUN) for number in range(5, 20)
        ]
        client.update_pipeline(Pipeline(name="pipelines/sales-00", shares=shares), ["shares"])
        run = client.deploy("sales-00", artifact=artifact).name
        return client.create_token("ada").secret, artifact, run


def _compare(
    what: str,
    hosts: dict[str, HostProcess],
    tokens: dict[str, str],
    requests: dict[str, Callable[[], bytes]],
) -> Iterator[Figure]:
    connections = {
        w: [Connection(host.address, f"{SERVICE}/{what}", tokens[w]) for _ in range(CONNECTIONS)]
        for w, host in hosts.items()
    }

    def under_load(which: str) -> tuple[float, float]:
        used: Sequence[Connection] = connections[which]
        before = cpu(hosts[which].pid)
        done = load(used, requests[which], IN_FLIGHT, SECONDS)
        return done.rate, (cpu(hosts[which].pid) - before) / done.calls * 1e6

    for which in hosts:
        one(connections[which][0], requests[which]())
        under_load(which)
    found = in_turn(ROUNDS, {w: partial(under_load, w) for w in hosts})
    rates = {w: [rate for rate, _ in rounds] for w, rounds in found.items()}
    costs = {w: [cost for _, cost in rounds] for w, rounds in found.items()}
    yield Figure.at_least(
        f"{what} with rights: calls per second, of without",
        ratio(rates["deciding"], rates["undecided"]),
        TARGET,
    )
    yield Figure.at_least(
        f"{what} with rights: calls per second of processor, of without",
        ratio(costs["undecided"], costs["deciding"]),
        TARGET,
    )
    yield Figure(
        f"{what}: what deciding takes",
        f"{median(costs['deciding']):.0f} µs of processor; without {median(costs['undecided']):.0f} µs",
    )


def _serve() -> None:
    from pipelinehost_server.__main__ import main
    from pipelinehost_server.access import Access

    def nothing(*_: object) -> None:
        """Decides nothing."""

    for name, instead in {"check": nothing, "require": nothing, "again": lambda *_: nothing}.items():
        getattr(Access, name)  # a decision that has another name by now would be made and measured
        setattr(Access, name, instead)
    main()


if __name__ == "__main__":
    _serve()
