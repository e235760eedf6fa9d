"""What docs/administrators.md and docs/gates.md promise to each role and relation, written by hand.

Nothing here is made from ``access.POLICY``: a wrong entry there is wrong in ``test_policy_table.py`` too, and
right or wrong here as a reader of the documentation would have it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from tests.rpc.conftest import DEVELOPMENT, Bed, package, parts, pipeline

from pipelinehost import errors
from pipelinehost.status import from_rpc_error
from pipelinehost.v1 import artifacts_pb2 as artifacts_api
from pipelinehost.v1 import pipeline_host_pb2 as api
from pipelinehost.v1.resources_pb2 import (
    Connection,
    Environment,
    Freeze,
    Gate,
    Pipeline,
    Principal,
    Run,
    Share,
    Stage,
)

ROLES = ("UNSPECIFIED", "VIEWER", "USER", "MAKER", "ADMINISTRATOR")
RELATIONS = "OERANX"
"""Owner, share EDIT, share RUN, approver of a gate; none (it is hidden); and what is not there at all."""

TABLE = """
                            no role  viewer  user    maker   administrator
                            OERANX   OERANX  OERANX  OERANX  OERANX
GetHost                     ......   ......  ......  ......  ......
ListPipelines               DDDDDD   ......  ......  ......  ......
ListRuns                    DDDDDD   ......  ......  ......  ......
ListEnvironments            DDDDDD   ......  ......  ......  ......
ListArtifacts               DDDDDD   ......  ......  ......  ......
ListEvents                  DDDDDD   ......  ......  ......  ......
WatchEvents                 DDDDDD   ......  ......  ......  ......
GetPipeline                 DDDDDD   ....NN  ....NN  ....NN  .....N
GetEnvironment              DDDDDD   ....NN  ....NN  ....NN  .....N
GetQueue                    DDDDDD   ....NN  ....NN  ....NN  .....N
GetRun                      DDDDDD   ....NN  ....NN  ....NN  .....N
WatchRun                    DDDDDD   ....NN  ....NN  ....NN  .....N
ListFindings                DDDDDD   ....NN  ....NN  ....NN  .....N
ListComponentResults        DDDDDD   ....NN  ....NN  ....NN  .....N
ListRunSettings             DDDDDD   ....NN  ....NN  ....NN  .....N
GetRunPipeline              DDDDDD   ....NN  ....NN  ....NN  .....N
GetArtifact                 DDDDDD   ....NN  ....NN  ....NN  .....N
DownloadArtifact            DDDDDD   DDDDDD  ....NN  ....NN  .....N
UploadArtifact              DDDDDD   DDDDDD  ......  ......  ......
CheckEnvironment            DDDDDD   DDDDDD  ....NN  ....NN  .....N
ListSolutions               DDDDDD   DDDDDD  ...DNN  ...DNN  .....N
ListConnections             DDDDDD   DDDDDD  ...DNN  ...DNN  .....N
DescribeSolution            DDDDDD   DDDDDD  ....NN  ....NN  .....N
DescribeSolution installed  DDDDDD   DDDDDD  ...DNN  ...DNN  .....N
DescribeSolution stage      DDDDDD   DDDDDD  ....NN  ....NN  .....N
ValidateDeployment          DDDDDD   DDDDDD  ...DNN  ...DNN  .....N
Deploy                      DDDDDD   DDDDDD  ...DNN  ...DNN  .....N
CancelRun                   DDDDDD   DDDDDD  ...DNN  ...DNN  .....N
RescheduleRun               DDDDDD   DDDDDD  ...DNN  ...DNN  .....N
RescheduleRun override      DDDDDD   DDDDDD  DDDDNN  DDDDNN  .....N
Deploy override             DDDDDD   DDDDDD  DDDDNN  DDDDNN  .....N
ValidateDeployment override DDDDDD   DDDDDD  DDDDNN  DDDDNN  .....N
ListFreezes                 DDDDDD   ......  ......  ......  ......
GetFreeze                   DDDDDD   ....NN  ....NN  ....NN  .....N
CreateFreeze                DDDDDD   DDDDDD  DDDDDD  ..DDNN  ......
CreateFreeze stage          DDDDDD   DDDDDD  DDDDDD  ..DDNN  ......
CreateFreeze host           DDDDDD   DDDDDD  DDDDDD  DDDDDD  ......
UpdateFreeze                DDDDDD   DDDDDD  DDDDDD  ..DDNN  .....N
DeleteFreeze                DDDDDD   DDDDDD  DDDDDD  ..DDNN  .....N
UpdateFreeze admins         DDDDDD   DDDDDD  DDDDDD  DDDDNN  .....N
DeleteFreeze admins         DDDDDD   DDDDDD  DDDDDD  DDDDNN  .....N
RetryRun                    DDDDDD   DDDDDD  ...DNN  ...DNN  .....N
Approve                     DDDDDD   DDD.NN  DDD.NN  DDD.NN  DDD.DN
Reject                      DDDDDD   DDD.NN  DDD.NN  DDD.NN  DDD.DN
CreatePipeline              DDDDDD   DDDDDD  DDDDDD  ......  ......
UpdatePipeline              DDDDDD   DDDDDD  DDDDDD  ..DDNN  .....N
UpdatePipeline shares       DDDDDD   DDDDDD  DDDDDD  .DDDNN  .....N
UpdatePipeline owner        DDDDDD   DDDDDD  DDDDDD  .DDDNN  .....N
DeletePipeline              DDDDDD   DDDDDD  DDDDDD  .DDDNN  .....N
RestoreArtifact             DDDDDD   DDDDDD  DDDDDD  .DDDNN  .....N
CreateEnvironment           DDDDDD   DDDDDD  DDDDDD  DDDDDD  ......
UpdateEnvironment           DDDDDD   DDDDDD  DDDDDD  DDDDDD  .....N
DeleteEnvironment           DDDDDD   DDDDDD  DDDDDD  DDDDDD  .....N
SetEnvironmentCredential    DDDDDD   DDDDDD  DDDDDD  DDDDDD  .....N
TakeOverEnvironment         DDDDDD   DDDDDD  DDDDDD  DDDDDD  .....N
CreateConnection            DDDDDD   DDDDDD  DDDDDD  DDDDDD  .....N
DeleteConnection            DDDDDD   DDDDDD  DDDDDD  DDDDDD  .....N
CreatePrincipal             DDDDDD   DDDDDD  DDDDDD  DDDDDD  ......
UpdatePrincipal             DDDDDD   DDDDDD  DDDDDD  DDDDDD  .....N
DeletePrincipal             DDDDDD   DDDDDD  DDDDDD  DDDDDD  .....N
CreateToken                 DDDDDD   DDDDDD  DDDDDD  DDDDDD  .....N
BlockArtifact               DDDDDD   DDDDDD  DDDDDD  DDDDDD  .....N
UnblockArtifact             DDDDDD   DDDDDD  DDDDDD  DDDDDD  .....N
ResolveRun                  DDDDDD   DDDDDD  DDDDDD  DDDDDD  .....N
ListGateNotes               DDDDDD   DDDDDD  DDDDDD  DDDDDD  .....N
VerifyEvents                DDDDDD   DDDDDD  DDDDDD  DDDDDD  ......
ExportEvents                DDDDDD   DDDDDD  DDDDDD  DDDDDD  ......
PruneEvents                 DDDDDD   DDDDDD  DDDDDD  DDDDDD  ......
"""
"""``.`` lets the call through, ``D`` is PERMISSION_DENIED, ``N`` NOT_FOUND. The owner is among the
environment's makers, too. Columns that a call has no resource for are all the same."""

PEOPLE = """
                no role  viewer  user  maker  administrator
                sgox     sgox    sgox  sgox   sgox
GetPrincipal    ..NN     ..NN    ..NN  ...N   ...N
ListPrincipals  ....     ....    ....  ....   ....
ListTokens      .DNN     .DNN    .DNN  .DDN   ...N
RevokeToken     .NNN     .NNN    .NNN  .NNN   ...N
"""
"""The same about oneself, a group of one's own, somebody else, and nobody."""

ABSENT = {
    "pipelines/sales": "pipelines/bales",
    "environments/dev": "environments/gone",
    "environments/qa": "environments/gone",
    "principals/stranger": "principals/nobody",
    "freezes/line": "freezes/gone",
    "freezes/admins": "freezes/gone",
}


@dataclass(frozen=True)
class Somebody:
    role: str
    relation: str
    way: str
    """``direct``, or ``group`` for the members of a group that has the relation."""
    name: str
    token: str


class World:
    """A pipeline with a run that waits at its gate, and somebody of every role in every relation to it."""

    def __init__(self, bed: Bed) -> None:
        self.bed, self.people = bed, list[Somebody]()
        bed.environment("dev", DEVELOPMENT)
        bed.environment("qa")
        x = Connection(
            name="environments/dev/connections/x",
            connector_id="/providers/Microsoft.PowerApps/apis/shared_sql",
        )
        bed.call(
            "CreateConnection", api.CreateConnectionRequest(environment="environments/dev", connection=x)
        )
        bed.person("stranger")
        groups: dict[str, list[str]] = {relation: [] for relation in "OERA"}
        named: dict[str, list[str]] = {relation: [] for relation in "OERA"}
        for role in ROLES:
            for relation in RELATIONS:
                for way in {"O": ["group"], "N": ["direct"], "X": ["direct"]}.get(
                    relation, ["direct", "group"]
                ):
                    slug = f"{relation.lower()}-{way}-{role.lower()}"
                    self.people.append(
                        Somebody(role, relation, way, f"principals/{slug}", bed.person(slug, role))
                    )
                    if relation in named:
                        (groups if way == "group" else named)[relation].append(f"principals/{slug}")
        for relation, members in groups.items():
            group = Principal(
                name=f"principals/team-{relation.lower()}", kind=Principal.KIND_GROUP, members=members
            )
            bed.call("CreatePrincipal", api.CreatePrincipalRequest(principal=group))
            named[relation].append(group.name)
        for slug in ("dev", "qa"):
            update = api.UpdateEnvironmentRequest(
                environment=Environment(name=f"environments/{slug}", makers=["principals/team-o"])
            )
            update.update_mask.paths.append("makers")
            bed.call("UpdateEnvironment", update)
        self.shares = [
            Share(principal=name, access=Share.ACCESS_EDIT if relation == "E" else Share.ACCESS_RUN)
            for relation in "ER"
            for name in named[relation]
        ]
        gate = Gate(kind=Gate.KIND_APPROVAL, approvers=named["A"])
        stage = Stage(name="pipelines/sales/stages/qa", environment="environments/qa", gates=[gate])
        bed.pipeline(owner="principals/team-o", shares=self.shares, stages=[stage])
        self.artifact = bed.upload(package()).name
        self.run = self.waiting()
        line = Freeze(name="freezes/line", scope="pipelines/sales", reason="x", time_zone="UTC")
        line.start = "2999-01-01T00:00"
        editor = next(p for p in self.people if (p.role, p.relation, p.way) == ("MAKER", "E", "direct"))
        bed.call("CreateFreeze", api.CreateFreezeRequest(freeze=line), token=editor.token)
        line.name = "freezes/admins"
        bed.call("CreateFreeze", api.CreateFreezeRequest(freeze=line))
        # A run of the unmanaged package lets those who see the pipeline see it; it is what may be restored.
        self.unmanaged = bed.upload(package(managed=False)).name

    def waiting(self) -> str:
        """A run that waits at the gate."""
        request = api.DeployRequest(pipeline="pipelines/sales", artifact=self.artifact)
        name: str = self.bed.call("Deploy", request).name
        end = time.monotonic() + 20
        while self.bed.call("GetRun", api.GetRunRequest(name=name)).state != Run.STATE_AWAITING_GATE:
            assert time.monotonic() < end
            time.sleep(0.02)
        return name

    def says(self, method: str, request: Any, token: str) -> str:
        """``.``, ``D`` or ``N``; what stands against a call beside its caller does not matter."""
        try:
            if method in {"WatchRun", "WatchEvents"}:
                stream = self.bed.stream(method, request, token=token, timeout=5)
                try:
                    next(stream)
                except grpc.RpcError as error:
                    raise from_rpc_error(error) from error
                finally:
                    stream.cancel()
            else:
                self.bed.call(method, request, token=token)
        except errors.PermissionDenied:
            return "D"
        except errors.NotFound as error:
            return "." if error.reason_name == "SOLUTION_NOT_FOUND" else "N"
        except (errors.Unauthenticated, errors.Internal):
            raise
        except errors.PipelineHostError:
            return "."
        return "."


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    bed = Bed(tmp_path_factory.mktemp("expected") / "data")
    yield World(bed)
    bed.close()


def request_for(world: World, row: str, who: Somebody) -> Any:
    """What the row asks, about what the person has the relation to; allowed, it changes little or nothing."""
    gone = who.relation == "X"
    method, _, what = row.partition(" ")

    def named(name: str) -> str:
        return ABSENT[name] if gone else name

    sales, dev, qa = named("pipelines/sales"), named("environments/dev"), named("environments/qa")
    run = "runs/01jd0000000000000000000001" if gone else world.run
    artifact = "artifacts/" + "0" * 64 if gone else world.artifact
    unmanaged = artifact if gone else world.unmanaged
    stranger = named("principals/stranger")
    deploy = api.DeployRequest(pipeline=sales, artifact=artifact)
    override = "a hotfix" if what == "override" else ""
    deploy.override_reason = override
    freeze = Freeze(
        name=named("freezes/admins" if what == "admins" else "freezes/line"), scope=sales, reason="x"
    )
    scope = {"": sales, "stage": f"{sales}/stages/qa", "host": ""}
    update = api.UpdatePipelineRequest(pipeline=Pipeline(name=sales, description="x"), validate_only=True)
    update.update_mask.paths.append(what or "description")
    if what == "owner":
        update.pipeline.owner = "principals/stranger"
    describe = {
        "": lambda: api.DescribeSolutionRequest(artifact=artifact),
        "installed": lambda: api.DescribeSolutionRequest(
            installed=api.DescribeSolutionRequest.Installed(environment=dev, solution="None")
        ),
        "stage": lambda: api.DescribeSolutionRequest(artifact=artifact, stage=f"{sales}/stages/qa"),
    }
    environment = Environment(name=dev, description="x")
    fresh = Principal(name="principals/new", kind=Principal.KIND_PERSON)
    given: dict[str, Callable[[], Any]] = {
        "GetPipeline": lambda: api.GetPipelineRequest(name=sales),
        "GetEnvironment": lambda: api.GetEnvironmentRequest(name=qa),
        "GetQueue": lambda: api.GetQueueRequest(environment=qa),
        "GetRun": lambda: api.GetRunRequest(name=run),
        "WatchRun": lambda: api.WatchRunRequest(name=run),
        "ListFindings": lambda: api.ListFindingsRequest(run=run),
        "ListComponentResults": lambda: api.ListComponentResultsRequest(run=run),
        "ListRunSettings": lambda: api.ListRunSettingsRequest(run=run),
        "GetRunPipeline": lambda: api.GetRunPipelineRequest(run=run),
        "BlockArtifact": lambda: artifacts_api.BlockArtifactRequest(name=unmanaged, reason="x"),
        "UnblockArtifact": lambda: artifacts_api.UnblockArtifactRequest(name=unmanaged, reason="x"),
        "GetArtifact": lambda: artifacts_api.GetArtifactRequest(name=artifact),
        "DownloadArtifact": lambda: artifacts_api.DownloadArtifactRequest(name=artifact),
        "UploadArtifact": lambda: iter(parts(package("9.0.0.0", name="Other"))),
        "CheckEnvironment": lambda: api.CheckEnvironmentRequest(name=qa),
        "ListSolutions": lambda: api.ListSolutionsRequest(environment=dev),
        "ListConnections": lambda: api.ListConnectionsRequest(environment=qa),
        "DescribeSolution": lambda: describe[what](),
        "ValidateDeployment": lambda: api.ValidateDeploymentRequest(deployment=deploy),
        "Deploy": lambda: deploy,
        "CancelRun": lambda: api.CancelRunRequest(name=run),
        "RescheduleRun": lambda: api.RescheduleRunRequest(name=run, override_reason=override),
        "GetFreeze": lambda: api.GetFreezeRequest(name=freeze.name),
        "CreateFreeze": lambda: api.CreateFreezeRequest(
            freeze=Freeze(name="freezes/new", scope=scope[what], reason="x"), validate_only=True
        ),
        "UpdateFreeze": lambda: api.UpdateFreezeRequest(freeze=freeze, validate_only=True),
        "DeleteFreeze": lambda: api.DeleteFreezeRequest(name=freeze.name, validate_only=True),
        "RetryRun": lambda: api.RetryRunRequest(name=run),
        "Approve": lambda: api.ApproveRequest(name=run, bound_sha256="of something else"),
        "Reject": lambda: api.RejectRequest(name=run, comment="no"),
        "CreatePipeline": lambda: api.CreatePipelineRequest(pipeline=pipeline("new"), validate_only=True),
        "UpdatePipeline": lambda: update,
        "DeletePipeline": lambda: api.DeletePipelineRequest(name=sales, validate_only=True),
        "RestoreArtifact": lambda: api.RestoreArtifactRequest(artifact=artifact, environment=dev),
        "CreateEnvironment": lambda: api.CreateEnvironmentRequest(
            environment=Environment(name="environments/new", kind=DEVELOPMENT), validate_only=True
        ),
        "UpdateEnvironment": lambda: api.UpdateEnvironmentRequest(
            environment=environment, validate_only=True
        ),
        "DeleteEnvironment": lambda: api.DeleteEnvironmentRequest(name=dev, validate_only=True),
        "TakeOverEnvironment": lambda: api.TakeOverEnvironmentRequest(name=dev, reason="x"),
        "SetEnvironmentCredential": lambda: api.SetEnvironmentCredentialRequest(name=dev, client_secret="x"),
        "CreateConnection": lambda: api.CreateConnectionRequest(
            environment=dev, connection=Connection(connector_id="/x"), validate_only=True
        ),
        "DeleteConnection": lambda: api.DeleteConnectionRequest(
            name=f"{dev}/connections/x", validate_only=True
        ),
        "CreatePrincipal": lambda: api.CreatePrincipalRequest(principal=fresh, validate_only=True),
        "UpdatePrincipal": lambda: api.UpdatePrincipalRequest(
            principal=Principal(name=stranger), validate_only=True
        ),
        "DeletePrincipal": lambda: api.DeletePrincipalRequest(name=stranger, validate_only=True),
        "CreateToken": lambda: api.CreateTokenRequest(principal=stranger),
        "ResolveRun": lambda: api.ResolveRunRequest(
            name=run, resolution=api.ResolveRunRequest.RESOLUTION_APPLIED, reason="seen"
        ),
        "ListGateNotes": lambda: api.ListGateNotesRequest(run=run),
        "ListEvents": lambda: api.ListEventsRequest(page_size=1000),
    }
    if method in given:
        return given[method]()
    return getattr(artifacts_api if method == "ListArtifacts" else api, f"{method}Request")()


def cells(table: str, columns: str) -> Iterator[tuple[str, str, str, str]]:
    """Row, role, column and what is expected."""
    for line in table.strip("\n").splitlines()[2:]:
        *row, none, viewer, user, maker, administrator = line.split()
        for role, expected in zip(ROLES, (none, viewer, user, maker, administrator), strict=True):
            for column, answer in zip(columns, expected, strict=True):
                yield " ".join(row), role, column, answer


def about_people(bed: Bed, method: str, column: str, who: Somebody) -> Any:
    name = {
        "s": who.name,
        "g": f"principals/team-{who.relation.lower()}",
        "o": "principals/stranger",
        "x": "principals/nobody",
    }[column]
    if method == "GetPrincipal":
        return api.GetPrincipalRequest(name=name)
    if method == "ListPrincipals":
        return api.ListPrincipalsRequest(page_size=1000)
    if method == "ListTokens":
        return api.ListTokensRequest(principal=name)
    if column == "x":
        return api.RevokeTokenRequest(name="tokens/00000000")
    holder = who.name if column == "s" else "principals/stranger"  # no group has a token
    made = bed.call("CreateToken", api.CreateTokenRequest(principal=holder))
    return api.RevokeTokenRequest(name=made.token.name)


ROWS = list(dict.fromkeys(row for row, *_ in cells(TABLE, RELATIONS)))
LISTS: dict[str, tuple[str, Callable[[World], str]]] = {
    "ListPipelines": ("pipelines", lambda w: "pipelines/sales"),
    "ListFreezes": ("freezes", lambda w: "freezes/line"),
    "ListRuns": ("runs", lambda w: w.run),
    "ListEnvironments": ("environments", lambda w: "environments/dev"),
    "ListArtifacts": ("artifacts", lambda w: w.artifact),
    "ListEvents": ("events", lambda w: w.run),
}


@pytest.mark.parametrize("row", sorted(ROWS, key=lambda row: row == "CancelRun"))
def test_what_is_documented_holds(row: str, world: World) -> None:
    wanted = {(role, column): answer for r, role, column, answer in cells(TABLE, RELATIONS) if r == row}
    method = row.partition(" ")[0]
    wrong = []
    for who in sorted(world.people, key=lambda p: wanted[p.role, p.relation] == "."):
        expected = wanted[who.role, who.relation]
        if method in {"Reject", "CancelRun"} and expected == "." and who.relation != "X":
            world.run = world.waiting()
        said = world.says(method, request_for(world, row, who), who.token)
        if said != expected:
            wrong.append(f"{who.role} {who.relation} {who.way}: {said} instead of {expected}")
    assert wrong == []


def test_the_table_has_every_call(world: World) -> None:
    about = {row.split()[0] for row in PEOPLE.strip("\n").splitlines()[2:]}
    assert {row.partition(" ")[0] for row in ROWS} | about == set(world.bed.methods)


@pytest.mark.parametrize("method", LISTS)
def test_lists_hold_what_may_be_seen_and_nothing_else(method: str, world: World) -> None:
    field, name = LISTS[method]
    for who in world.people:
        if who.role == "UNSPECIFIED":
            continue
        answer = world.bed.call(method, request_for(world, method, who), token=who.token)
        names = {getattr(r, "subject", "") or r.name for r in getattr(answer, field)}
        sees = who.relation in "OERA" or who.role == "ADMINISTRATOR"
        assert (name(world) in names) is sees, who
        assert sees or method == "ListArtifacts" or not names, who


@pytest.mark.parametrize("method", ["GetPrincipal", "ListPrincipals", "ListTokens", "RevokeToken"])
def test_what_is_documented_about_people_holds(method: str, world: World) -> None:
    people = [p for p in world.people if p.way == "group" and p.relation == "R"]
    by_role = {p.role: p for p in people}
    wrong = []
    for row, role, column, expected in cells(PEOPLE, "sgox"):
        if row == method:
            who = by_role[role]
            said = world.says(method, about_people(world.bed, method, column, who), who.token)
            if said != expected:
                wrong.append(f"{role} {column}: {said} instead of {expected}")
    assert wrong == []
    for role, who in by_role.items():
        found = world.bed.call("ListPrincipals", api.ListPrincipalsRequest(page_size=1000), token=who.token)
        own = {who.name, "principals/team-r"}
        assert ({p.name for p in found.principals} == own) is (role not in {"MAKER", "ADMINISTRATOR"})
