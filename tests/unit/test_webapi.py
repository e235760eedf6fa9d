"""The client of the Web API against scripted answers: repetition, caps, addresses, reading."""

import asyncio
import base64
import gzip
import json
from collections.abc import Awaitable, Callable
from datetime import UTC
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.scripted import (
    ACCEPTED,
    BASE,
    INTENT,
    JOB,
    OPERATION,
    STAGED,
    USER,
    WHO,
    Fault,
    Script,
    Time,
    answer,
    api,
    broken,
    raw,
    refusal,
)

from pipelinehost_dataverse.solution.model import ComponentKey, VariableType, Version
from pipelinehost_dataverse.webapi import (
    SOLUTION_LOCK,
    AccessDenied,
    AnswerLost,
    BadAnswer,
    ConnectionParameter,
    DataverseError,
    EnvironmentBusy,
    EnvironmentUnreachable,
    ImportIntent,
    ImportMode,
    ImportOperation,
    NotFound,
    OperationState,
    Refused,
    Severity,
    Throttled,
    VariableParameter,
    Wait,
    WebApi,
)
from pipelinehost_dataverse.webapi.calls import OFF_LOOP, Body
from pipelinehost_dataverse.webapi.importlog import read_import_log
from pipelinehost_dataverse.webapi.records import guid

GOLDEN = Path(__file__).resolve().parents[1] / "golden"

# ---- repetition -------------------------------------------------------------------------------------------

READ = (answer(WHO), lambda w: w.who_am_i())
STAGE = (answer(STAGED), lambda w: w.stage_solution(b"zip"))
IMPORT = (answer(ACCEPTED), lambda w: w.start_import(b"zip", INTENT))
PUBLISH = (answer(status=204), lambda w: w.publish_all())
DISCARD = (answer(status=204), lambda w: w.discard_upload(JOB))
WRITES = {"stage": STAGE, "import": IMPORT, "publish": PUBLISH, "discard": DISCARD}

# fault, is a read repeated, is a write repeated, what is raised where it lasts
FAULTS: dict[str, tuple[Fault, bool, bool, type[DataverseError]]] = {
    "429": (refusal(429, "0x80072322"), True, True, Throttled),
    "429 lock": (refusal(429, SOLUTION_LOCK), True, True, EnvironmentBusy),
    "400 lock": (refusal(400, "0x80071151"), True, True, EnvironmentBusy),
    "503 lock": (refusal(503, SOLUTION_LOCK), True, False, AnswerLost),
    "500": (refusal(500, "0x80040216"), False, False, AnswerLost),
    "502": (refusal(502), True, False, AnswerLost),
    "503": (refusal(503), True, False, AnswerLost),
    "504": (refusal(504), True, False, AnswerLost),
    "408": (refusal(408), False, False, AnswerLost),
    "400": (refusal(400, "0x80048541"), False, False, Refused),
    "401": (refusal(401), False, False, AccessDenied),
    "403": (refusal(403, "0x80040220"), False, False, AccessDenied),
    "413": (refusal(413), False, False, Refused),
    "connect": (broken(httpx.ConnectError), True, True, EnvironmentUnreachable),
    "connect timeout": (broken(httpx.ConnectTimeout), True, True, EnvironmentUnreachable),
    "no free connection": (broken(httpx.PoolTimeout), True, True, EnvironmentUnreachable),
    "read timeout": (broken(httpx.ReadTimeout), True, False, AnswerLost),
    "read": (broken(httpx.ReadError), True, False, AnswerLost),
    "write": (broken(httpx.WriteError), True, False, AnswerLost),
    "write timeout": (broken(httpx.WriteTimeout), True, False, AnswerLost),
    "disconnected": (broken(httpx.RemoteProtocolError), True, False, AnswerLost),
}


async def attempts(fault: Fault, job: tuple[Fault, Callable[[WebApi], Awaitable[object]]]) -> int:
    """How often a request is sent when ``fault`` comes once and then the good answer."""
    good, ask = job
    script = Script(fault, good)
    async with api(script) as web:
        try:
            await ask(web)
        except DataverseError:
            assert len(script.requests) == 1
    return len(script.requests)


@pytest.mark.parametrize("name", FAULTS)
async def test_a_read_is_repeated_where_that_can_help(name: str) -> None:
    fault, repeated, _, _ = FAULTS[name]
    assert await attempts(fault, READ) == (2 if repeated else 1)


@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("name", FAULTS)
async def test_a_write_is_repeated_only_where_nothing_was_done(name: str, write: str) -> None:
    fault, _, repeated, _ = FAULTS[name]
    assert await attempts(fault, WRITES[write]) == (2 if repeated else 1)


@pytest.mark.parametrize("job", [READ, STAGE, IMPORT], ids=["read", "stage", "import"])
@pytest.mark.parametrize("name", FAULTS)
async def test_a_fault_that_lasts_is_told_apart_within_the_budget(
    name: str, job: tuple[Fault, Callable[[WebApi], Awaitable[object]]]
) -> None:
    fault, _, _, kind = FAULTS[name]
    clock, script = Time(), Script(fault)
    policy = clock.policy(retry_budget=20, lock_budget=100)
    async with api(script, policy) as web:
        with pytest.raises(DataverseError) as caught:
            await job[1](web)
    assert type(caught.value) is kind
    assert clock.now - 1000 <= (100 if kind is EnvironmentBusy else 20)
    assert len(script.requests) == len(clock.slept) + 1
    if kind is EnvironmentBusy:
        assert len(clock.slept) == 5  # 20 seconds each: patient, as an import takes minutes
    assert caught.value.request_id


@pytest.mark.parametrize("name", ["connect", "503", "429", "429 lock"])
async def test_who_waits_without_being_told_is_not_kept_waiting(name: str) -> None:
    """But where another operation is under way: that is no failure, and it ends."""
    fault, *_, kind = FAULTS[name]
    clock, script = Time(), Script(fault)
    async with api(script, clock.policy(retry_budget=120, lock_budget=600)) as web:
        with pytest.raises(kind):
            await READ[1](web.patient(10))
        waited = clock.now - 1000
        assert (waited > 500) if kind is EnvironmentBusy else (0 < waited <= 10)
        with pytest.raises(kind):
            await READ[1](web)
        assert clock.now - 1000 - waited > 60, "the others are as patient as ever"


async def test_an_import_whose_answer_cannot_be_read_is_lost_not_bad() -> None:
    for unreadable in (
        raw(b"<html>"),
        answer({"ImportJobKey": "x", "AsyncOperationId": OPERATION}),
        answer(status=204),
        answer(status=302, location="https://elsewhere.example/"),
    ):
        script = Script(unreadable)
        async with api(script) as web:
            with pytest.raises(AnswerLost):
                await web.start_import(b"zip", INTENT)
        assert len(script.requests) == 1


async def test_retry_after_is_honoured_and_waits_are_told() -> None:
    clock, told = Time(), list[Wait]()
    script = Script(refusal(429, "0x80072321", "too much", Retry_After="7"), *[answer(STAGED)])
    async with api(script, clock.policy()) as web:
        await web.telling(told.append).stage_solution(b"zip")
    assert clock.slept == [7]
    assert told == [Wait("POST StageSolution", 7, 1, "0x80072321", "too much")]


@pytest.mark.parametrize(
    ("text", "waits"),
    [("0", [0.5]), ("-5", [0.5]), ("nan", [0.5]), ("1e400", [0.5]), ("soon", [0.5]), ("86400", [])],
)
async def test_a_strange_retry_after_neither_hurries_nor_stalls(text: str, waits: list[float]) -> None:
    clock, script = Time(), Script(refusal(429, Retry_After=text), answer(WHO))
    async with api(script, clock.policy()) as web:
        if waits:
            await web.who_am_i()
        else:
            with pytest.raises(Throttled) as caught:
                await web.who_am_i()
            assert caught.value.retry_after == 86400
    assert clock.slept == waits


async def test_retry_after_may_be_a_date() -> None:
    clock, script = Time(), Script(refusal(429, Retry_After="Fri, 01 Jan 2100 00:00:00 GMT"), answer(WHO))
    async with api(script, clock.policy()) as web:
        with pytest.raises(Throttled) as caught:
            await web.who_am_i()
    assert caught.value.retry_after is not None
    assert caught.value.retry_after > 1e9


async def test_a_refused_token_is_renewed_once() -> None:
    asked: list[tuple[str, bool]] = []

    async def token(scope: str, *, renew: bool = False) -> str:
        asked.append((scope, renew))
        return f"secret{len(asked)}"

    script = Script(refusal(401), answer(ACCEPTED))
    async with WebApi("https://org.crm4.dynamics.com", transport=script, token=token) as web:
        await web.start_import(b"zip", INTENT)
    scope = "https://org.crm4.dynamics.com/.default"
    assert asked == [(scope, False), (scope, True)]
    assert [r.headers["authorization"] for r in script.requests] == ["Bearer secret1", "Bearer secret2"]

    script = Script(refusal(401))
    async with WebApi("https://org.crm4.dynamics.com", transport=script, token=token) as web:
        with pytest.raises(AccessDenied) as caught:
            await web.who_am_i()
    assert len(script.requests) == 2
    assert "secret" not in str(caught.value) + repr(caught.value)


async def test_connections_have_an_audience_of_their_own() -> None:
    scopes: list[str] = []

    async def token(scope: str, *, renew: bool = False) -> str:
        scopes.append(scope)
        return "secret"

    web = WebApi(
        "https://org.crm4.dynamics.com",
        connectivity_url="https://0123.4.environment.api.powerplatform.com",
        transport=Script(answer({"value": []})),
        token=token,
    )
    async with web:
        assert await web.connections() == []
    assert scopes == ["https://api.powerplatform.com/.default"]
    async with api(Script(answer())) as without:
        assert await without.connections() is None
        with pytest.raises(ValueError, match="no connectivity address"):
            await without.create_connection("/x/shared_x", "")


# ---- time and size ----------------------------------------------------------------------------------------


async def test_an_environment_that_never_answers_is_given_up() -> None:
    asked: list[str] = []

    async def silent(scope: Any, receive: Any, _send: Any) -> None:
        """An ASGI application that takes the request and never answers."""
        asked.append(scope["method"])
        await receive()
        await asyncio.Event().wait()

    clock = Time()
    policy = clock.policy(read_seconds=0.05, action_seconds=0.05, retry_budget=3)
    async with api(httpx.ASGITransport(silent, raise_app_exceptions=False), policy) as web:
        with pytest.raises(AnswerLost, match=r"within 0\.05 seconds"):
            await web.start_import(b"zip", INTENT)
        assert (asked, clock.slept) == (["POST"], [])
        with pytest.raises(AnswerLost):
            await web.who_am_i()
    assert set(asked[1:]) == {"GET"}
    assert len(asked[1:]) == len(clock.slept) + 1 > 1
    assert sum(clock.slept) <= 3


async def test_an_answer_has_a_largest_size_also_as_inflated() -> None:
    policy = Time().policy(answer_bytes=10_000)
    whole = json.dumps(WHO | {"more": "x" * 20_000}).encode()
    for fault in (raw(whole), raw(gzip.compress(whole), content_encoding="gzip")):
        async with api(Script(fault), policy) as web:
            with pytest.raises(BadAnswer, match="larger than 10000 bytes"):
                await web.who_am_i()


@pytest.mark.parametrize(
    "fault",
    [
        raw(b"\x1f\x8bnothing", content_encoding="gzip"),
        raw(b""),
        raw(b"<html>"),
        raw(b"[" * 100_000),
        raw(b'{"UserId":' + b"9" * 5000 + b"}"),
        raw(b'{"UserId":"\\ud800"}'),
        answer([]),
        answer({"UserId": 1}),
        answer(WHO | {"UserId": "me"}),
        answer(WHO, 302, location="https://elsewhere.example"),
    ],
)
async def test_an_answer_that_is_not_as_documented_is_bad(fault: Fault) -> None:
    script = Script(fault)
    async with api(script) as web:
        with pytest.raises(BadAnswer):
            await web.who_am_i()
    assert len(script.requests) == 1


async def test_a_huge_error_is_cut_and_its_escapes_are_out() -> None:
    hostile = "\x1b[31mred\x1b]0;title\x07\r\nlog: \u202eforged\x9b2J \ud83d" + "x" * 50_000
    script = Script(raw(json.dumps({"error": {"code": "-2147188707", "message": hostile}}).encode(), 400))
    async with api(script) as web:
        with pytest.raises(Refused) as caught:
            await web.who_am_i()
    assert caught.value.code == "0x8004801D"
    assert caught.value.message.startswith("red log: forged xxx")
    assert len(caught.value.message) == 2000
    assert str(caught.value).isprintable()
    script = Script(raw(b"x" * 10_000_000, 400))
    async with api(script) as web:
        with pytest.raises(Refused, match="Bad Request"):
            await web.who_am_i()


async def test_a_token_that_the_environment_repeats_is_not_told() -> None:
    async def token(scope: str, *, renew: bool = False) -> str:
        return "opaque-token-4711"

    script = Script(refusal(403, "0x80040220", "Bearer opaque-token-4711 may not"))
    async with api(script, token=token) as web:
        with pytest.raises(AccessDenied) as refused:
            await web.who_am_i()
    assert script.requests[0].headers["Authorization"] == "Bearer opaque-token-4711"
    assert refused.value.message == "Bearer … may not"


# ---- packages ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 2, 3, 4, OFF_LOOP + 1, 3 * 2**20, 3 * 2**20 + 1, 7_000_001])
async def test_a_package_is_sent_whole_in_pieces(size: int) -> None:
    package = bytes(range(256)) * (size // 256) + bytes(size % 256)
    script = Script(answer(STAGED))
    async with api(script) as web:
        await web.stage_solution(package)
    sent = script.requests[0]
    assert int(sent.headers["content-length"]) == len(sent.content)
    assert "transfer-encoding" not in sent.headers
    assert base64.b64decode(json.loads(sent.content)["CustomizationFile"], validate=True) == package
    pieces = [len(piece) async for piece in Body({"a": 1}, package)]
    assert max(pieces) <= 4 * 2**20
    assert sum(pieces) == Body({"a": 1}, package).length()


@pytest.mark.parametrize("size", [0, 5, 2_000_000])
@pytest.mark.parametrize("escaped", [False, True])
async def test_an_export_is_polled_and_downloaded(size: int, escaped: bool) -> None:
    package = bytes(range(250, 256)) * (size // 6)
    text = base64.b64encode(package).decode()
    text = text.replace("/", "\\/") if escaped else text
    started = answer({"AsyncOperationId": OPERATION, "ExportJobId": JOB})
    clock = Time()
    script = Script(
        started,
        answer({"statecode": 0, "statuscode": 0}),
        answer({"statecode": 2, "statuscode": 20}),
        answer({"statecode": 3, "statuscode": 30}),
        lambda _: httpx.Response(
            200, content=f'{{"@odata.context":"x","ExportSolutionFile": "{text}"}}'.encode()
        ),
    )
    async with api(script, clock.policy()) as web:
        assert await web.export_solution("Sales", managed=True) == package
    assert json.loads(script.requests[0].content) == {"SolutionName": "Sales", "Managed": True}
    assert json.loads(script.requests[-1].content) == {"ExportJobId": JOB}
    assert len(clock.slept) == 2


@pytest.mark.parametrize(
    "content",
    [b"{}", b'{"ExportSolutionFile":"A"}', b'{"ExportSolutionFile":"', b'{"ExportSolutionFile":"*aaa"}'],
)
async def test_a_download_without_a_package_is_bad(content: bytes) -> None:
    script = Script(
        answer({"AsyncOperationId": OPERATION, "ExportJobId": JOB}),
        answer({"statecode": 3, "statuscode": 30}),
        lambda _: httpx.Response(200, content=content),
    )
    async with api(script) as web:
        with pytest.raises(BadAnswer, match="ExportSolutionFile"):
            await web.export_solution("Sales", managed=True)


async def test_padding_ends_the_base64_of_a_download() -> None:
    text = base64.b64encode(bytes(2**20)).decode()  # longer than the pieces in which it is decoded
    padded = text[: 2**20 - 4] + "AA==" + text[2**20 :]
    script = Script(
        answer({"AsyncOperationId": OPERATION, "ExportJobId": JOB}),
        answer({"statecode": 3, "statuscode": 30}),
        answer({"ExportSolutionFile": padded}),
    )
    async with api(script) as web:
        with pytest.raises(BadAnswer, match="not base64"):
            await web.export_solution("Sales", managed=True)


async def test_a_failed_export_tells_the_environments_reason() -> None:
    failed = {
        "statecode": 3,
        "statuscode": 31,
        "errorcode": -2147188682,
        "friendlymessage": "Managed\nsolutions",
    }
    script = Script(answer({"AsyncOperationId": OPERATION, "ExportJobId": JOB}), answer(failed))
    async with api(script) as web:
        with pytest.raises(Refused, match="Managed solutions") as caught:
            await web.export_solution("Sales", managed=False)
    assert caught.value.code == "0x80048036"


async def test_an_export_that_never_ends_is_given_up() -> None:
    clock = Time()
    script = Script(
        answer({"AsyncOperationId": OPERATION, "ExportJobId": JOB}),
        answer({"statecode": 2, "statuscode": 20}),
    )
    async with api(script, clock.policy(export_seconds=60)) as web:
        with pytest.raises(AnswerLost, match="60 seconds"):
            await web.export_solution("Sales", managed=True)
    assert clock.now - 1000 <= 60


async def test_what_an_import_posts() -> None:
    script = Script(answer(ACCEPTED))
    parameters = (
        ConnectionParameter("x_Ref", "c1", "/providers/Microsoft.PowerApps/apis/shared_x"),
        VariableParameter("x_New", "1"),
        VariableParameter("x_Old", "2", "{4" + "4" * 7 + "-4444-4444-4444-444444444444}"),
    )
    async with api(script) as web:
        assert await web.start_import(b"zip", INTENT, parameters=parameters) == ImportOperation(
            JOB, OPERATION
        )
    request = script.requests[0]
    assert request.method == "POST"
    assert request.url.path == "/api/data/v9.2/StageAndUpgradeAsync"
    for name, value in {
        "accept": "application/json",
        "odata-version": "4.0",
        "if-none-match": "null",
    }.items():
        assert request.headers[name] == value
    assert json.loads(request.content) == {
        "OverwriteUnmanagedCustomizations": False,
        "PublishWorkflows": True,
        "ImportJobId": JOB,
        "CustomizationFile": base64.b64encode(b"zip").decode(),
        "ComponentParameters": [
            {
                "@odata.type": "Microsoft.Dynamics.CRM.connectionreference",
                "connectionreferencelogicalname": "x_Ref",
                "connectionreferencedisplayname": "",
                "description": "",
                "connectorid": "/providers/Microsoft.PowerApps/apis/shared_x",
                "connectionid": "c1",
            },
            {
                "@odata.type": "Microsoft.Dynamics.CRM.environmentvariablevalue",
                "schemaname": "x_New",
                "value": "1",
            },
            {
                "@odata.type": "Microsoft.Dynamics.CRM.environmentvariablevalue",
                "schemaname": "x_Old",
                "value": "2",
                "environmentvariablevalueid": "44444444-4444-4444-4444-444444444444",
            },
        ],
    }


# ---- reading ----------------------------------------------------------------------------------------------


async def test_quotes_in_names_stay_inside_the_literal() -> None:
    script = Script(answer({"value": []}))
    async with api(script) as web:
        assert await web.solution("x' or 1 eq 1 or 'y&$top=1#?") is None
    assert script.requests[0].url.params["$filter"] == "uniquename eq 'x'' or 1 eq 1 or ''y&$top=1#?'"
    assert set(script.requests[0].url.params) == {"$select", "$filter", "$expand"}


@pytest.mark.parametrize(
    "bad",
    ["", "x", "1) or (1 eq 1", USER + "'", "urn:uuid:" + USER, USER.replace("-", ""), "{" + USER + "}}"],
)
async def test_only_guids_go_into_addresses(bad: str) -> None:
    script = Script(answer())
    async with api(script) as web:
        with pytest.raises(ValueError, match="no GUID"):
            await web.discard_upload(bad)
        with pytest.raises(ValueError, match="no GUID"):
            await web.dependants(bad, 29)
    assert script.requests == []
    assert guid(f" {{{JOB.upper()}}}") == JOB


async def test_pages_are_followed_at_home_only() -> None:
    row = {"connectionreferencelogicalname": "x", "connectorid": "c", "connectionid": None}
    home = f"{BASE}/api/data/v9.2/connectionreferences?$skiptoken=2"
    script = Script(answer({"value": [row], "@odata.nextLink": home}), answer({"value": [row]}))
    async with api(script) as web:
        assert len(await web.connection_references()) == 2
    for elsewhere in (
        "https://evil.example/api/data/v9.2/x",
        "//evil.example/x",
        f"{BASE}.evil.example/api/data/v9.2/x",
        f"{BASE}/api/data/v9.2/../../admin",
        "/admin",
        "http://embedded.invalid@evil.example/api/data/v9.2/x",
    ):
        script = Script(answer({"value": [row], "@odata.nextLink": elsewhere}))
        async with api(script) as web:
            with pytest.raises(BadAnswer, match="another address"):
                await web.connection_references()
        assert len(script.requests) == 1
    script = Script(answer({"value": [row], "@odata.nextLink": home}))
    async with api(script) as web:
        with pytest.raises(BadAnswer, match="no end"):
            await web.connection_references()


async def test_the_captured_stage_answer_is_read() -> None:
    captured = json.loads((GOLDEN / "stage_solution_terraform_test_1_1_0_0.json").read_text("utf-8-sig"))
    async with api(Script(answer(captured))) as web:
        staged = await web.stage_solution(b"zip")
    assert staged.passed
    assert staged.upload_id is not None
    assert staged.solution is not None
    assert (staged.solution.unique_name, str(staged.solution.version)) == ("TerraformTestSolution", "1.1.0.0")
    assert staged.solution.previous_version is None
    assert not staged.solution.has_pending_upgrade
    reference = next(c for c in staged.components if c.type_name == "connectionreference")
    assert (
        reference.attributes["connectorid"] == "/providers/Microsoft.PowerApps/apis/shared_sharepointonline"
    )
    assert (staged.findings, staged.missing_dependencies) == ((), ())


async def test_a_failed_stage_is_a_result() -> None:
    failed = {
        "StageSolutionStatus": "Failed",
        "StageSolutionUploadId": "00000000-0000-0000-0000-000000000000",
        "SolutionDetails": None,
        "SolutionComponentsDetails": None,
        "MissingDependencies": [
            {
                "RequiredComponentSchemaName": "x_ref",
                "RequiredComponentType": "connectionreference",
                "DependentComponentDisplayName": "Flow\x1b[1m",
                "DependentComponentId": JOB,
                "RequiredSolutionName": "Active",
            }
        ],
        "SolutionValidationResults": [
            {"SolutionValidationResultType": "Error", "Message": "missing", "ErrorCode": -2147188707},
            {"SolutionValidationResultType": 1, "Message": "newer", "ErrorCode": 0, "AdditionalInfo": None},
            {"SolutionValidationResultType": "Novel", "Message": "?"},
        ],
    }
    async with api(Script(answer({"StageSolutionResults": failed}))) as web:
        staged = await web.stage_solution(b"zip")
    assert not staged.passed
    assert (staged.upload_id, staged.solution) == (None, None)
    assert [(f.severity, f.code) for f in staged.findings] == [
        (Severity.ERROR, "0x8004801D"),
        (Severity.WARNING, ""),
        (Severity.ERROR, ""),
    ]
    missing = staged.missing_dependencies[0]
    assert (missing.required.schema_name, missing.dependent.display_name) == ("x_ref", "Flow")
    assert missing.required_solution == "Active"


async def test_variables_are_joined_with_their_values() -> None:
    def rows(request: httpx.Request) -> httpx.Response:
        if "environmentvariablevalues" in request.url.path:
            assert request.url.params["$filter"] == f"_environmentvariabledefinitionid_value eq {JOB}"
            value = {
                "environmentvariablevalueid": USER,
                "value": "v\n1",
                "_environmentvariabledefinitionid_value": JOB,
            }
            return httpx.Response(200, json={"value": [value]})
        assert request.url.params["$filter"] == "schemaname eq 'x_A' or schemaname eq 'x_B'"
        definition = {
            "environmentvariabledefinitionid": JOB,
            "schemaname": "x_A",
            "type": 100000003,
            "isrequired": True,
        }
        return httpx.Response(200, json={"value": [definition]})

    async with api(Script(rows)) as web:
        (found,) = await web.environment_variables(["x_B", "x_A", "x_A"])
    assert (found.value, found.value_id, found.default, found.required) == ("v\n1", USER, None, True)
    assert found.type is VariableType.JSON
    script = Script(answer({"value": []}))
    async with api(script) as web:
        assert await web.environment_variables([]) == []
        assert await web.environment_variables([f"x_{n}" for n in range(50)]) == []
    assert len(script.requests) == 3  # 20 names at a time, and no value without a definition


async def test_text_that_nothing_can_store_is_bad() -> None:
    script = Script(raw(b'{"value":[{"connectionreferencelogicalname":"x\\ud800"}]}'))
    async with api(script) as web:
        with pytest.raises(BadAnswer, match="not valid text"):
            await web.connection_references()


async def test_components_get_the_identity_that_packages_use() -> None:
    def row(
        code: int, name: str, schema_name: str = "", table: str = "", parent: str = ""
    ) -> dict[str, object]:
        return {
            "msdyn_componenttype": code,
            "msdyn_objectid": JOB.upper(),
            "msdyn_name": name,
            "msdyn_schemaname": schema_name or None,
            "msdyn_componentlogicalname": table or None,
            "msdyn_primaryentityname": parent or None,
        }

    solution = {"solutionid": USER, "uniquename": "S", "version": "1.0"}
    script = Script(
        answer({"value": [solution]}),
        answer(
            {
                "value": [
                    row(1, "admin_App"),
                    row(2, "admin_Colour", parent="Admin_App"),
                    row(2, "admin_Colour"),
                    row(29, "When this then that"),
                    row(10112, "", "x_Ref", "connectionreference"),
                    row(10500, "something"),
                ]
            }
        ),
    )
    async with api(script) as web:
        installed = await web.solution("s")
        assert installed is not None
        keys = [c.key for c in await web.installed_components(installed)]
    assert keys == [
        ComponentKey("entity", "admin_app"),
        ComponentKey("attribute", "admin_app.admin_colour"),
        None,
        ComponentKey("workflow", JOB),
        ComponentKey("connectionreference", "x_ref"),
        None,
    ]


# ---- progress and results of imports ----------------------------------------------------------------------

LOG = """<?xml version="1.0" encoding="utf-16"?>
<importexportxml start="1" stop="2" progress="100" processed="true" succeeded="{verdict}">
 <solutionManifests><solutionManifest id="Sales" LocalizedName="Sales" processed="true">
  <result result="success" errorcode="0" errortext="" datetimeticks="1"/>
  <UniqueName>Sales</UniqueName><Version>1.2.0.0</Version></solutionManifest></solutionManifests>
 <entities><entity id="account" LocalizedName="Account"><result result="{result}" errorcode="0x8004F046"
   errortext="it&#10;failed"/></entity></entities>
 <novelties><novelty name="x"><result result="warning" errorcode="-2147188707"
   errortext="odd"/></novelty></novelties>
 <rootComponents/>
</importexportxml>"""


def log(verdict: str = "success", result: str = "success") -> str:
    return LOG.format(verdict=verdict, result=result)


def test_an_import_log_is_read_whatever_its_sections() -> None:
    found = read_import_log(log("failure", "failure"))
    assert (found.solution, str(found.version), found.succeeded) == ("Sales", "1.2.0.0", False)
    assert [(r.kind, r.name, r.severity, r.code, r.text) for r in found.results] == [
        ("solutionManifest", "Sales", Severity.INFO, "", ""),
        ("entity", "Account", Severity.ERROR, "0x8004F046", "it failed"),
        ("novelty", "x", Severity.WARNING, "0x8004801D", "odd"),
    ]
    assert read_import_log(log()).succeeded is True
    assert read_import_log('<importexportxml processed="false"/>').succeeded is None


@pytest.mark.parametrize(
    "bad",
    [
        "",
        "<a>",
        '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><a>&x;</a>',
        '<!DOCTYPE a [<!ENTITY x "y">]><a>&x;</a>',
        "<!DOCTYPE a><a/>",
        "<a>" * 100_000,
        "<a>\x00</a>",
    ],
)
def test_an_import_log_that_is_none_is_refused(bad: str) -> None:
    with pytest.raises(ValueError, match="import log"):
        read_import_log(bad)


def environment(
    operation: dict[str, object] | None, job: dict[str, object] | None, data: str | None = None
) -> Fault:
    """Answers for one async operation and one import job."""

    def answered(request: httpx.Request) -> httpx.Response:
        row = operation if "asyncoperations" in request.url.path else job
        if row is None:
            return refusal(404, "0x80040217")(request)
        return httpx.Response(200, json={"data": data} if request.url.params["$select"] == "data" else row)

    return answered


RUNNING = {"statecode": 2, "statuscode": 20, "friendlymessage": "importing tables"}
DONE = {"statecode": 3, "statuscode": 30, "completedon": "2026-05-01T12:00:00Z"}
FAILED = {"statecode": 3, "statuscode": 31, "errorcode": -2147188707, "message": "missing"}
AT_WORK = {
    "progress": 41.5,
    "solutionname": "Sales",
    "startedon": "2026-05-01T12:00:00Z",
    "completedon": None,
}
ENDED = {**AT_WORK, "progress": 100.0, "completedon": "2026-05-01T12:01:00.1234567Z"}


@pytest.mark.parametrize(
    ("operation", "job", "data", "expected"),
    [
        (RUNNING, AT_WORK, None, (OperationState.RUNNING, 41.5, "importing tables", "")),
        (RUNNING, None, None, (OperationState.RUNNING, 0, "importing tables", "")),
        (
            {"statecode": 0, "statuscode": 0},
            None,
            None,
            (OperationState.RUNNING, 0, "waiting for its turn", ""),
        ),
        (RUNNING, ENDED, log(), (OperationState.RUNNING, 100, "importing tables", "")),
        (DONE, ENDED, log(), (OperationState.SUCCEEDED, 100, "succeeded", "")),
        (FAILED, ENDED, log("failure", "failure"), (OperationState.FAILED, 100, "failed", "0x8004801D")),
        ({"statecode": 3, "statuscode": 32}, None, None, (OperationState.CANCELED, 0, "canceled", "")),
        (None, AT_WORK, None, (OperationState.RUNNING, 41.5, "importing", "")),
        (None, ENDED, log(), (OperationState.SUCCEEDED, 100, "succeeded", "")),
        (None, ENDED, log("failure", "failure"), (OperationState.FAILED, 100, "failed", "0x8004F046")),
        (None, ENDED, None, (OperationState.FAILED, 100, "failed", "")),
    ],
)
async def test_progress_of_an_import(
    operation: dict[str, object] | None,
    job: dict[str, object] | None,
    data: str | None,
    expected: tuple[OperationState, float, str, str],
) -> None:
    async with api(Script(environment(operation, job, data))) as web:
        found = await web.import_progress(ImportOperation(JOB, OPERATION))
        assert (found.state, found.percent, found.text, found.code) == expected
        result = await web.import_result(ImportOperation(JOB, OPERATION))
        assert (result.state, result.code) == (found.state, found.code)
        assert len(result.components) == (3 if data else 0)


async def test_an_import_that_nobody_knows_is_not_found() -> None:
    async with api(Script(environment(None, None))) as web:
        with pytest.raises(NotFound):
            await web.import_progress(ImportOperation(JOB, OPERATION))
        with pytest.raises(NotFound):
            await web.import_result(ImportOperation("", OPERATION))


async def test_an_import_known_by_one_id_only() -> None:
    async with api(Script(environment(DONE, None))) as web:
        assert (await web.import_progress(ImportOperation("", OPERATION))).state is OperationState.SUCCEEDED
    async with api(Script(environment(None, ENDED, log()))) as web:
        assert (await web.import_progress(ImportOperation(JOB, ""))).state is OperationState.SUCCEEDED


# ---- what is stored ---------------------------------------------------------------------------------------

TIMES = st.datetimes(timezones=st.just(UTC))
VERSIONS = st.lists(st.integers(0, 99999), min_size=1, max_size=4).map(
    lambda parts: Version.parse(".".join(map(str, parts)))
)


@given(
    st.builds(
        ImportIntent,
        import_job_id=st.uuids().map(str),
        solution=st.text(),
        version=VERSIONS,
        mode=st.sampled_from(ImportMode),
        user_id=st.uuids().map(str),
        environment_time=TIMES,
        installed_version=st.none() | VERSIONS,
        known_history_ids=st.lists(st.uuids().map(str)).map(tuple),
        known_job_ids=st.lists(st.uuids().map(str)).map(tuple),
    )
)
def test_an_intent_survives_storage(intent: ImportIntent) -> None:
    assert ImportIntent.from_json(intent.to_json()) == intent
    assert ImportIntent.from_json(intent.to_json()).version.text == intent.version.text


def test_what_is_no_stored_intent_is_refused() -> None:
    for text in ("", "{}", "[]", "null", '{"version": 1}', INTENT.to_json().replace("UPGRADE", "WHATEVER")):
        with pytest.raises(ValueError, match=r"."):
            ImportIntent.from_json(text)
        with pytest.raises(ValueError, match=r"."):
            ImportOperation.from_json(text)
    operation = ImportOperation(JOB, "")
    assert ImportOperation.from_json(operation.to_json()) == operation
