"""Every RPC, role and relation to the resource, against a running host: who may, and who sees nothing."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from tests.rpc.conftest import DEVELOPMENT, Bed, package, parts, pipeline

from pipelinehost import errors
from pipelinehost.status import from_rpc_error
from pipelinehost.v1 import artifacts_pb2 as artifacts_api
from pipelinehost.v1 import pipeline_host_pb2 as api
from pipelinehost.v1.resources_pb2 import Connection, Environment, Freeze, Pipeline, Principal, Share
from pipelinehost_server import access
from pipelinehost_server.access import Access, Permission, Relation, Rule

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "policy.txt"
ROLES = ("UNSPECIFIED", "VIEWER", "USER", "MAKER", "ADMINISTRATOR")
RELATIONS = ("owner", "edit", "run", "group-edit", "group-run", "hidden", "absent")
REACH = {"owner": 4, "edit": 3, "group-edit": 3, "run": 2, "group-run": 2, "hidden": 0, "absent": 0}
CAP = {"UNSPECIFIED": 0, "VIEWER": 1, "USER": 2, "MAKER": 4, "ADMINISTRATOR": 4}
NEEDED = {Relation.SEES: 1, Relation.RUNS: 2, Relation.EDITS: 3, Relation.OWNS: 4, Relation.FREEZES: 3}
POLICY = dict(access.POLICY)
"""As it is before a test plants a hole."""
PATHS = {path.rpartition("/")[2]: path for path in POLICY if path.startswith("/pipelinehost.v1.")}
STREAMS = {"WatchRun", "WatchEvents"}


@dataclass(frozen=True)
class Person:
    role: str
    relation: str
    name: str
    token: str
    spare: str
    """Another token of theirs, by name."""


@dataclass(frozen=True)
class World:
    bed: Bed
    run: str
    artifact: str
    people: list[Person]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    bed = Bed(tmp_path_factory.mktemp("table") / "data", advancing=0)
    bed.environment("dev", DEVELOPMENT)
    bed.environment("qa")
    bed.person("stranger")
    people, shares, teams = [], [], {t: list[str]() for t in ("owner", "group-edit", "group-run")}
    for role in ROLES:
        for relation in RELATIONS:
            slug = f"{relation}-{role.lower()}"
            token = bed.person(slug, role)
            spare = bed.call("CreateToken", api.CreateTokenRequest(principal=f"principals/{slug}")).token.name
            people.append(Person(role, relation, f"principals/{slug}", token, spare))
            if relation in teams:
                teams[relation].append(f"principals/{slug}")
            elif relation in {"edit", "run"}:
                shares.append(Share(principal=f"principals/{slug}", access=f"ACCESS_{relation.upper()}"))
    for team, members in teams.items():
        group = Principal(name=f"principals/team-{team}", kind=Principal.KIND_GROUP, members=members)
        bed.call("CreatePrincipal", api.CreatePrincipalRequest(principal=group))
        if team != "owner":
            kind = team.removeprefix("group-").upper()
            shares.append(Share(principal=group.name, access=f"ACCESS_{kind}"))
    makers = Environment(name="environments/dev", makers=["principals/team-owner"])
    request = api.UpdateEnvironmentRequest(environment=makers)
    request.update_mask.paths.append("makers")
    bed.call("UpdateEnvironment", request)
    bed.pipeline(owner="principals/team-owner", shares=shares)
    line = Freeze(name="freezes/line", scope="pipelines/sales", reason="x", time_zone="UTC")
    line.start, line.end = "2999-01-01T00:00", "2999-01-02T00:00"
    editor = next(p for p in people if (p.role, p.relation) == ("MAKER", "edit"))
    bed.call("CreateFreeze", api.CreateFreezeRequest(freeze=line), token=editor.token)
    artifact = bed.upload(package()).name
    run = bed.call(
        "Deploy",
        api.DeployRequest(pipeline="pipelines/sales", stage="pipelines/sales/stages/qa", artifact=artifact),
    ).name
    yield World(bed, run, artifact, people)
    bed.close()


def request_for(world: World, method: str, person: Person) -> Any:
    """Names what the person has the relation to; if it is allowed, little or nothing is changed."""
    gone = person.relation == "absent"
    sales = "pipelines/bales" if gone else "pipelines/sales"
    environment = "environments/gone" if gone else "environments/dev"
    run = "runs/01jd0000000000000000000001" if gone else world.run
    artifact = "artifacts/" + "0" * 64 if gone else world.artifact
    principal = {"owner": person.name, "absent": "principals/absent"}.get(
        person.relation, "principals/stranger"
    )
    token = {"owner": person.spare, "absent": "tokens/00000000"}.get(
        person.relation, f"tokens/{world.bed.token[3:11]}"
    )
    stage, freeze = f"{sales}/stages/qa", "freezes/gone" if gone else "freezes/line"
    deploy = api.DeployRequest(pipeline=sales, stage=stage, artifact=artifact)
    update = api.UpdatePipelineRequest(pipeline=Pipeline(name=sales, description="x"), validate_only=True)
    update.update_mask.paths.append("description")
    given: dict[str, Callable[[], Any]] = {
        "GetHost": api.GetHostRequest,
        "GetPrincipal": lambda: api.GetPrincipalRequest(name=principal),
        "CreatePrincipal": lambda: api.CreatePrincipalRequest(
            principal=Principal(name="principals/new", kind=Principal.KIND_PERSON), validate_only=True
        ),
        "UpdatePrincipal": lambda: api.UpdatePrincipalRequest(
            principal=Principal(name="principals/stranger"), validate_only=True
        ),
        "DeletePrincipal": lambda: api.DeletePrincipalRequest(name="principals/stranger", validate_only=True),
        "CreateToken": lambda: api.CreateTokenRequest(principal="principals/stranger"),
        "ListTokens": lambda: api.ListTokensRequest(principal=principal),
        "RevokeToken": lambda: api.RevokeTokenRequest(name=token),
        "GetEnvironment": lambda: api.GetEnvironmentRequest(name=environment),
        "CreateEnvironment": lambda: api.CreateEnvironmentRequest(
            environment=Environment(name="environments/new", kind=DEVELOPMENT), validate_only=True
        ),
        "UpdateEnvironment": lambda: api.UpdateEnvironmentRequest(
            environment=Environment(name="environments/dev"), validate_only=True
        ),
        "DeleteEnvironment": lambda: api.DeleteEnvironmentRequest(
            name="environments/dev", validate_only=True
        ),
        "SetEnvironmentCredential": lambda: api.SetEnvironmentCredentialRequest(
            name="environments/dev", client_secret="x"
        ),
        "TakeOverEnvironment": lambda: api.TakeOverEnvironmentRequest(name="environments/dev", reason="x"),
        "CheckEnvironment": lambda: api.CheckEnvironmentRequest(name=environment),
        "ListSolutions": lambda: api.ListSolutionsRequest(environment=environment),
        "DescribeSolution": lambda: api.DescribeSolutionRequest(artifact=artifact, stage=stage),
        "ListConnections": lambda: api.ListConnectionsRequest(environment=environment),
        "CreateConnection": lambda: api.CreateConnectionRequest(
            environment="environments/dev", connection=Connection(connector_id="/x"), validate_only=True
        ),
        "DeleteConnection": lambda: api.DeleteConnectionRequest(
            name="environments/dev/connections/x", validate_only=True
        ),
        "GetFreeze": lambda: api.GetFreezeRequest(name=freeze),
        "CreateFreeze": lambda: api.CreateFreezeRequest(
            freeze=Freeze(name="freezes/new", scope=sales, reason="x"), validate_only=True
        ),
        "UpdateFreeze": lambda: api.UpdateFreezeRequest(
            freeze=Freeze(name=freeze, scope=sales, reason="y"), validate_only=True
        ),
        "DeleteFreeze": lambda: api.DeleteFreezeRequest(name=freeze, validate_only=True),
        "GetPipeline": lambda: api.GetPipelineRequest(name=sales),
        "CreatePipeline": lambda: api.CreatePipelineRequest(pipeline=pipeline("new"), validate_only=True),
        "UpdatePipeline": lambda: update,
        "DeletePipeline": lambda: api.DeletePipelineRequest(name=sales, validate_only=True),
        "ValidateDeployment": lambda: api.ValidateDeploymentRequest(deployment=deploy),
        "Deploy": lambda: deploy,
        "RestoreArtifact": lambda: api.RestoreArtifactRequest(artifact=artifact, environment=environment),
        "GetRun": lambda: api.GetRunRequest(name=run),
        "WatchRun": lambda: api.WatchRunRequest(name=run),
        "CancelRun": lambda: api.CancelRunRequest(name=run),
        "RescheduleRun": lambda: api.RescheduleRunRequest(name=run),
        "RetryRun": lambda: api.RetryRunRequest(name=run),
        "ResolveRun": lambda: api.ResolveRunRequest(name=world.run),
        "Approve": lambda: api.ApproveRequest(name=run),
        "Reject": lambda: api.RejectRequest(name=run, comment="no"),
        "ListGateNotes": lambda: api.ListGateNotesRequest(run=world.run),
        "ListFindings": lambda: api.ListFindingsRequest(run=run),
        "ListComponentResults": lambda: api.ListComponentResultsRequest(run=run),
        "ListRunSettings": lambda: api.ListRunSettingsRequest(run=run),
        "GetRunPipeline": lambda: api.GetRunPipelineRequest(run=run),
        "GetQueue": lambda: api.GetQueueRequest(environment=environment),
        "ListEvents": lambda: api.ListEventsRequest(page_size=1000),
        "BlockArtifact": lambda: artifacts_api.BlockArtifactRequest(name=artifact),
        "UnblockArtifact": lambda: artifacts_api.UnblockArtifactRequest(name=artifact),
        "GetArtifact": lambda: artifacts_api.GetArtifactRequest(name=artifact),
        "UploadArtifact": lambda: iter(parts(package())),
        "DownloadArtifact": lambda: artifacts_api.DownloadArtifactRequest(name=artifact),
    }
    if method in given:
        return given[method]()
    module = artifacts_api if method == "ListArtifacts" else api
    return getattr(module, f"{method}Request")()


def expected(method: str, person: Person) -> str:
    """The code that the policy says, or OK for whatever an allowed call comes to."""
    rule = POLICY[PATHS[method]]
    if person.role == "ADMINISTRATOR":
        return "OK"
    if ROLES.index(person.role) < rule.permission:
        return "PERMISSION_DENIED"
    reach = min(REACH[person.relation], CAP[person.role])
    for _, _, relation in rule.relations:
        if method in {"GetPrincipal", "ListTokens", "RevokeToken"}:
            if person.relation == "owner":
                continue
            knows = person.role == "MAKER" and person.relation != "absent" and method != "RevokeToken"
            if not knows:
                return "NOT_FOUND"
            if relation is Relation.IS:
                return "PERMISSION_DENIED"
        elif reach == 0:
            return "NOT_FOUND"
        elif reach < NEEDED.get(relation, 0) or (relation is Relation.MAKES and person.relation != "owner"):
            return "PERMISSION_DENIED"
    return "OK"


ROWS: dict[str, tuple[str, Callable[[World], str]]] = {
    "ListFreezes": ("freezes", lambda w: "freezes/line"),
    "ListPipelines": ("pipelines", lambda w: "pipelines/sales"),
    "ListRuns": ("runs", lambda w: w.run),
    "ListEnvironments": ("environments", lambda w: "environments/qa"),
    "ListArtifacts": ("artifacts", lambda w: w.artifact),
    "ListEvents": ("events", lambda w: w.run),
}


def call(world: World, method: str, person: Person) -> tuple[str, Any]:
    """What the host says: a code and the answer or the error."""
    request = request_for(world, method, person)
    try:
        if method in STREAMS:
            stream = world.bed.stream(method, request, token=person.token, timeout=0.5)
            try:
                next(stream)
            except grpc.RpcError as error:
                if error.code() is not grpc.StatusCode.DEADLINE_EXCEEDED:
                    raise from_rpc_error(error) from error
            finally:
                stream.cancel()
            return "OK", None
        return "OK", world.bed.call(method, request, token=person.token)
    except errors.PipelineHostError as error:
        return re.sub(r"(?<!^)(?=[A-Z])", "_", type(error).__name__).upper(), error


def wrong_cells(world: World, methods: list[str]) -> tuple[int, list[str]]:
    """How many cells there are, and those in which the host says or does something else than it should."""
    count, wrong = 0, []
    for method in methods:
        cells = sorted(world.people, key=lambda p: expected(method, p) == "OK")
        before, denying = world.bed.snapshot(), True
        looks: dict[tuple[str, str], str] = {}
        for person in cells:
            count += 1
            want = expected(method, person)
            if want == "OK" and denying:
                denying = False
                if world.bed.snapshot() != before:
                    wrong.append(f"{method}: a denied call has changed the store")
            code, answer = call(world, method, person)
            cell = f"{method}, {person.role}, {person.relation}: {code} instead of {want}"
            denied = {"PERMISSION_DENIED", "NOT_FOUND", "UNAUTHENTICATED"}
            if person.role == "ADMINISTRATOR":
                denied = {"PERMISSION_DENIED", "UNAUTHENTICATED"}
            if (code != want) if want != "OK" else (code in {*denied, "INTERNAL", "UNKNOWN"}):
                wrong.append(cell)
            if want == "NOT_FOUND" and code == want:
                name = answer.metadata["resource"]
                said = repr((answer.message, answer.remedy, answer.metadata, answer.violations))
                looks[person.role, person.relation] = said.replace(name, "…")
            if code == "OK" and method in ROWS:
                field, row = ROWS[method]
                names = {getattr(r, "subject", "") or r.name for r in getattr(answer, field)}
                sees = person.role == "ADMINISTRATOR" or min(REACH[person.relation], CAP[person.role]) > 0
                if method == "ListArtifacts":
                    sees = sees or (person.name in uploaders)
                if (row(world) in names) is not sees or (not sees and names):
                    wrong.append(f"{cell}: rows {sorted(names)[:3]}")
            if method == "UploadArtifact" and code == "OK":
                uploaders.add(person.name)
        if denying and world.bed.snapshot() != before:
            wrong.append(f"{method}: a denied call has changed the store")
        for role in ROLES:
            hidden, absent = looks.get((role, "hidden")), looks.get((role, "absent"))
            if hidden != absent and None not in {hidden, absent}:
                wrong.append(f"{method}, {role}: hidden is told apart from absent: {hidden} / {absent}")
    return count, wrong


uploaders: set[str] = set()
"""Who may see the artifact because they have uploaded its bytes."""


def test_every_rpc_role_and_relation(world: World) -> None:
    # Uploads come last: whoever has uploaded a package may see it.
    methods = sorted(PATHS, key=lambda m: m == "UploadArtifact")
    assert set(methods) == set(world.bed.methods)
    count, wrong = wrong_cells(world, methods)
    assert wrong == []
    assert count == len(PATHS) * len(ROLES) * len(RELATIONS)
    assert count >= 900


@pytest.mark.parametrize(
    ("method", "hole"),
    [
        ("GetRun", Rule(Permission.VIEW)),
        ("GetPipeline", Rule(Permission.SIGNED_IN)),
        ("ListFindings", Rule(Permission.VIEW)),
        ("ListTokens", Rule(Permission.SIGNED_IN)),
        ("ListSolutions", Rule(Permission.VIEW, environment=Relation.SEES)),
        ("DeletePipeline", Rule(Permission.MAKE, name=Relation.EDITS)),
        ("RetryRun", Rule(Permission.VIEW, name=Relation.SEES)),
        ("CreateToken", Rule(Permission.MAKE)),
    ],
)
def test_a_planted_hole_is_caught(
    method: str, hole: Rule, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert wrong_cells(world, [method])[1] == []
    monkeypatch.setitem(access.POLICY, PATHS[method], hole)
    assert wrong_cells(world, [method])[1]


@pytest.mark.parametrize("method", list(ROWS))
def test_a_list_that_shows_everything_is_caught(
    method: str, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert wrong_cells(world, [method])[1] == []
    monkeypatch.setattr(Access, "rows", staticmethod(lambda caller, kind: ()))
    assert wrong_cells(world, [method])[1]


def test_the_policy_is_what_was_decided() -> None:
    lines = [
        f"{path.rpartition('/')[2]:<26}{rule.permission.name:<12}"
        + ", ".join(f"{relation.name} {field}" for field, _, relation in rule.relations)
        for path, rule in POLICY.items()
    ]
    assert "\n".join(line.rstrip() for line in lines) + "\n" == GOLDEN.read_text()
