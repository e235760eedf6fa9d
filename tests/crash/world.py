"""What the storm plays in: pipelines, their gates, who approves, and the host's clock."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

from tests.crash.record import INSIDE, OUTSIDE

from pipelinehost import Cancelled, Client, DeadlineExceeded, Unavailable
from pipelinehost.channel import interrupted
from pipelinehost.errors import PipelineHostError
from pipelinehost.v1.resources_pb2 import Environment, Gate, Pipeline, Principal, Stage

PIPELINES = ("a", "b")
"""Nobody is asked; each has a stage of its own, and production, which is the target of all."""
GATED, HASTY = "gated", "hasty"
"""Gates that wait as long as need be, and one that expires soon."""
APPROVERS = ("ann", "bob", "cyd")
REQUESTER = "admin"
"""Who asks for all runs; named by a gate, too, to be refused there."""
HASTE = 3
"""Seconds that the gate of the hasty pipeline waits."""
GATES: Mapping[tuple[str, str], tuple[Gate, ...]] = {
    (GATED, "qa"): (
        Gate(kind=Gate.KIND_PRE_EXPORT, approvers=["principals/ann"]),
        Gate(kind=Gate.KIND_APPROVAL, approvers=["principals/ann", "principals/bob"]),
    ),
    (GATED, "production"): (
        Gate(kind=Gate.KIND_APPROVAL, approvers=[f"principals/{name}" for name in APPROVERS], required=2),
        Gate(kind=Gate.KIND_PRE_DEPLOYMENT, approvers=["principals/cyd", f"principals/{REQUESTER}"]),
    ),
    (HASTY, "qa"): (Gate(kind=Gate.KIND_APPROVAL, approvers=["principals/bob"], timeout_seconds=HASTE),),
}
DEVELOPMENT = tuple(f"dev-{p}" for p in PIPELINES)
TARGETS = (*(f"qa-{p}" for p in (*PIPELINES, GATED, HASTY)), "production")
"""Of either side; runs have to wait for production."""
DAY = 24 * 3600


@dataclass
class Clock:
    """The host's clock: the machine's own, put forward or back at restarts."""

    days: int = 0
    jumps: bool = False

    @property
    def shift(self) -> int:
        """How far it is put forward, in nanoseconds."""
        return self.days * DAY * 10**9

    def now(self) -> int:
        """Nanoseconds since 1970, as the host tells them."""
        return time.time_ns() + self.shift


@dataclass(frozen=True)
class World:
    """What everybody in the storm shares."""

    clock: Clock
    approvers: dict[str, Client]


def configure(client: Client, urls: Mapping[str, str]) -> None:
    """Make everything that runs need.

    Args:
        client: of an administrator.
        urls: where the environments outside the host's process are, by name.
    """
    for name in APPROVERS:
        client.create_principal(
            Principal(name=f"principals/{name}", kind=Principal.KIND_PERSON, role=Principal.ROLE_VIEWER)
        )
    for side in (INSIDE, OUTSIDE):
        for name in (*DEVELOPMENT, *TARGETS):
            url = urls.get(f"{side}-{name}", "")
            kind = Environment.KIND_DEVELOPMENT if name in DEVELOPMENT else Environment.KIND_TARGET
            client.create_environment(
                Environment(name=f"environments/{side}-{name}", kind=kind, url=url, connectivity_url=url)
            )
        for pipeline in (*PIPELINES, GATED, HASTY):
            full = f"pipelines/{side}-{pipeline}"
            development = pipeline if pipeline in PIPELINES else PIPELINES[0]
            stages = {"qa": f"{side}-qa-{pipeline}", "production": f"{side}-production"}
            if pipeline == HASTY:
                del stages["production"]
            client.create_pipeline(
                Pipeline(
                    name=full,
                    development_environments=[f"environments/{side}-dev-{development}"],
                    allow_redeployment=pipeline == GATED,
                    stages=[
                        Stage(
                            name=f"{full}/stages/{stage}",
                            environment=f"environments/{environment}",
                            gates=GATES.get((pipeline, stage), ()),
                        )
                        for stage, environment in stages.items()
                    ],
                )
            )


def gates_of(stage: str) -> tuple[Gate, ...]:
    """What a stage asks, by its full name; nothing for a restore, which has none."""
    _, pipeline, _, name = stage.split("/") if stage else ("", "", "", "")
    return GATES.get((pipeline.partition("-")[2], name), ())


def passing(error: PipelineHostError) -> bool:
    """Whether the host was away, and the same call may be made again."""
    return isinstance(error, Unavailable | Cancelled | DeadlineExceeded) or interrupted(error)
