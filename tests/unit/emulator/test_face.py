"""What ordinary OData clients ask for: documents, paths, pages, annotations, batches."""

import uuid
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from tests.unit.emulator.asked import OFFICE, Asked, package

from pipelinehost_dataverse.emulator import face
from pipelinehost_dataverse.emulator.tables import ENTITY_SETS, TABLES
from pipelinehost_dataverse.solution import (
    Column,
    ConnectionReference,
    EnvironmentVariable,
    VariableType,
    cloud_flow,
)
from pipelinehost_dataverse.solution import Table as TablePart

FORMATTED = "OData.Community.Display.V1.FormattedValue"
TRAVEL = package(
    "Travel",
    "1.0",
    TablePart("cts_trip", (Column("cts_cost", "money"),), display_name="Trip"),
    EnvironmentVariable("cts_Limit", "Limit", "", VariableType.NUMBER, "1", True, "5"),
    ConnectionReference("cts_Mail", "Mail", "", OFFICE),
    cloud_flow("Book", connection_references=["cts_Mail"]),
)


@pytest.fixture
async def travel(qa: Asked) -> Asked:
    outcome = await qa.install(TRAVEL)
    assert outcome.succeeded, outcome
    return qa


async def ask(qa: Asked, path: str, prefer: str) -> Any:
    answer = await qa._client.get(path, headers={"Prefer": prefer})
    assert answer.status_code == 200, answer.text
    return answer


async def test_the_service_document_names_every_table(qa: Asked) -> None:
    answer = (await qa.request("GET", "")).json()
    assert answer["@odata.context"] == "http://environment/api/data/v9.2/$metadata"
    for entry in answer["value"]:
        assert (await qa.request("GET", entry["url"] + "?$top=1")).status_code == 200
    assert {entry["name"] for entry in answer["value"]} == {*ENTITY_SETS, "EntityDefinitions"}


async def test_the_metadata_document_agrees_with_what_is_answered(travel: Asked) -> None:
    answer = await travel.request("GET", "$metadata")
    assert answer.headers["content-type"] == "application/xml"
    space = "{http://docs.oasis-open.org/odata/ns/edm}"
    root = ET.fromstring(answer.text)
    types = {t.attrib["Name"]: t for t in root.iter(f"{space}EntityType")}
    sets = {s.attrib["Name"]: s for s in root.iter(f"{space}EntitySet")}
    for name in ENTITY_SETS:
        kind = types[sets[name].attrib["EntityType"].removeprefix("Microsoft.Dynamics.CRM.")]
        columns = {p.attrib["Name"] for p in kind.iter(f"{space}Property")}
        rows = await travel.get(f"{name}?$top=1")
        assert rows or name == "stagesolutionuploads"
        assert all(row.keys() == columns for row in rows), name
        for link in kind.iter(f"{space}NavigationProperty"):
            await travel.get(f"{name}?$top=1&$expand={link.attrib['Name']}")
            target = link.attrib["Type"].removeprefix("Collection(").removesuffix(")").removeprefix("mscrm.")
            assert target in types
    known = {*types, *(c.attrib["Name"] for c in root.iter(f"{space}ComplexType"))}
    used = {e.attrib["Type"] for kind in ("Property", "ReturnType") for e in root.iter(f"{space}{kind}")}
    assert {name for name in used if not name.startswith("Edm.")} == {
        f"mscrm.{name}" for name in known - types.keys()
    }
    operations = {o.attrib["Name"] for kind in ("Action", "Function") for o in root.iter(f"{space}{kind}")}
    assert operations == {*face._ACTIONS, *face._FUNCTIONS}


async def test_paths_lead_to_rows_columns_and_counts(travel: Asked) -> None:
    row = await travel.solution("Travel")
    here = f"solutions({row['solutionid']})"
    assert (await travel.request("GET", f"{here}/publisherid?$select=uniquename")).json()[
        "uniquename"
    ] == "contoso"
    assert (await travel.request("GET", f"{here}/publisherid/uniquename")).json()["value"] == "contoso"
    assert (await travel.request("GET", f"{here}/version/$value")).text == "1.0"
    assert (await travel.request("GET", f"{here}/ismanaged/$value")).text == "true"
    assert (await travel.request("GET", f"{here}/parentsolutionid")).status_code == 204
    assert (await travel.request("GET", f"{here}/upgradeinfo")).status_code == 204
    components = await travel.get(f"{here}/solution_solutioncomponent")
    assert len(components) == len(await travel.components("Travel"))
    one = components[0]["solutioncomponentid"]
    assert (await travel.request("GET", f"{here}/solution_solutioncomponent({one})?$select=objectid")).json()[
        "objectid"
    ] == components[0]["objectid"]
    assert (await travel.request("GET", f"{here}/solution_solutioncomponent/$count")).text == str(
        len(components)
    )
    assert (
        await travel.request("GET", "solutions/$count?$filter=ismanaged eq true and isvisible eq true")
    ).text == "1"
    nested = (
        f"{here}?$select=version&$expand=publisherid($expand=publisher_solution($filter=isvisible eq true))"
    )
    answer = (await travel.request("GET", nested)).json()
    assert [s["uniquename"] for s in answer["publisherid"]["publisher_solution"]] == ["Travel"]
    by_navigation = (
        "environmentvariablevalues?$filter=EnvironmentVariableDefinitionId/schemaname eq 'cts_limit'"
    )
    assert [v["value"] for v in await travel.get(by_navigation)] == ["5"]


@pytest.mark.parametrize("top", [None, 7])
async def test_pages_join_to_the_whole(qa: Asked, top: int | None) -> None:
    path = "solutions?$select=uniquename&$orderby=uniquename&$count=true" + (f"&$top={top}" if top else "")
    whole = [row["uniquename"] for row in await qa.get(path)]
    assert len(whole) == (top or 427)
    size = 100 if top is None else 3
    answer = await ask(qa, path, f"odata.maxpagesize={size}")
    assert answer.headers["preference-applied"] == f"odata.maxpagesize={size}"
    found, pages = [], 0
    while True:
        body = answer.json()
        assert body["@odata.count"] == 427
        assert len(body["value"]) <= size
        found += [row["uniquename"] for row in body["value"]]
        pages += 1
        if "@odata.nextLink" not in body:
            break
        answer = await ask(qa, body["@odata.nextLink"], f"odata.maxpagesize={size}")
    assert found == whole
    assert pages == -(-len(whole) // size)


async def test_annotations_come_where_they_are_asked_for(travel: Asked) -> None:
    path = "solutions?$filter=uniquename eq 'travel'&$count=true"
    path += "&$select=ismanaged,installedon,_publisherid_value"
    (plain,) = (await travel.request("GET", path)).json()["value"]
    assert not any("@" in name for name in plain)
    answer = await ask(travel, path, 'odata.maxpagesize=9,odata.include-annotations="*"')
    assert answer.json()["@Microsoft.Dynamics.CRM.totalrecordcount"] == 1
    assert answer.json()["@Microsoft.Dynamics.CRM.totalrecordcountlimitexceeded"] is False
    assert answer.headers["preference-applied"] == 'odata.maxpagesize=9,odata.include-annotations="*"'
    (row,) = answer.json()["value"]
    assert row[f"ismanaged@{FORMATTED}"] == "Yes"
    assert row[f"_publisherid_value@{FORMATTED}"] == "Contoso"
    assert row["_publisherid_value@Microsoft.Dynamics.CRM.lookuplogicalname"] == "publisher"
    assert row["_publisherid_value@Microsoft.Dynamics.CRM.associatednavigationproperty"] == "publisherid"
    assert row[f"installedon@{FORMATTED}"].endswith(("AM", "PM"))
    some = await ask(travel, path, f'odata.include-annotations="{FORMATTED}"')
    assert not any("lookuplogicalname" in name for name in some.json()["value"][0])
    variable = await ask(
        travel, "environmentvariabledefinitions?$select=type,statecode", 'odata.include-annotations="OData.*"'
    )
    (row,) = variable.json()["value"]
    assert (row[f"type@{FORMATTED}"], row[f"statecode@{FORMATTED}"]) == ("Number", "Active")


async def test_counts_stop_where_those_of_dataverse_stop(qa: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelinehost_dataverse.emulator.odata.COUNT", 100)
    answer = (await ask(qa, "solutions?$count=true&$top=1", 'odata.include-annotations="*"')).json()
    assert answer["@odata.count"] == 100
    assert answer["@Microsoft.Dynamics.CRM.totalrecordcountlimitexceeded"] is True
    assert (await qa.request("GET", "solutions/$count")).text == "100"


async def test_definitions_tell_the_tables_and_those_of_solutions(travel: Asked) -> None:
    rows = await travel.get("EntityDefinitions?$select=LogicalName,EntitySetName,PrimaryIdAttribute")
    by_name = {row["LogicalName"]: row for row in rows}
    assert {TABLES[name].logical_name for name in ENTITY_SETS} < by_name.keys()
    assert by_name["solution"]["EntitySetName"] == "solutions"
    trip = (await travel.request("GET", "EntityDefinitions(LogicalName='cts_trip')")).json()
    assert trip["DisplayName"]["UserLocalizedLabel"]["Label"] == "Trip"
    assert (trip["IsManaged"], trip["EntitySetName"]) == (True, "cts_trips")
    columns = await travel.get("EntityDefinitions(LogicalName='cts_trip')/Attributes")
    assert ("cts_cost", "money") in {(c["LogicalName"], c["AttributeType"]) for c in columns}
    kinds = {
        c["LogicalName"]: c["AttributeType"]
        for c in await travel.get(f"EntityDefinitions({by_name['solution']['MetadataId']})/Attributes")
    }
    assert (kinds["publisherid"], kinds["solutionid"]) == ("Lookup", "Uniqueidentifier")
    one = "EntityDefinitions(LogicalName='solution')/Attributes(LogicalName='version')?$select=AttributeType"
    assert (await travel.request("GET", one)).json()["AttributeType"] == "String"


async def test_who_works_in_the_environment(travel: Asked) -> None:
    who = await travel.get("WhoAmI")
    user = await travel.get(f"systemusers({who['UserId']})?$select=fullname&$expand=businessunitid")
    assert user["businessunitid"]["businessunitid"] == who["BusinessUnitId"]
    job = (await travel.get("importjobs?$expand=createdby($select=fullname)&$select=name"))[0]
    assert job["createdby"]["fullname"] == user["fullname"]


# ---- batches --------------------------------------------------------------------------------------------


def batched(*requests: str, changes: str = "") -> tuple[bytes, str]:
    parts = [
        "--b1\r\nContent-Type: application/http\r\nContent-Transfer-Encoding: binary\r\n\r\n"
        f"{request} HTTP/1.1\r\nAccept: application/json\r\n\r\n\r\n"
        for request in requests
    ]
    if changes:
        parts.append(
            "--b1\r\nContent-Type: multipart/mixed; boundary=c1\r\n\r\n"
            "--c1\r\nContent-Type: application/http\r\n"
            f"Content-Transfer-Encoding: binary\r\nContent-ID: 7\r\n\r\n{changes}\r\n--c1--\r\n\r\n"
        )
    return ("".join(parts) + "--b1--\r\n").encode(), 'multipart/mixed; boundary="b1"'


async def posted(qa: Asked, content: bytes, content_type: str, prefer: str = "") -> Any:
    headers = {"Content-Type": content_type, "Prefer": prefer}
    return await qa._client.post("$batch", content=content, headers=headers)


async def test_a_batch_is_answered_part_by_part(travel: Asked) -> None:
    row = await travel.solution("Travel")
    raised = (
        f"PATCH /api/data/v9.2/solutions({uuid.uuid4()}) HTTP/1.1\r\nContent-Type: application/json\r\n\r\n"
        '{"version": "2.0"}'
    )
    content, kind = batched(
        "GET solutions?$filter=uniquename eq 'Travel'&$select=version",
        f"GET http://environment/api/data/v9.2/solutions({row['solutionid']})/version/$value",
        "GET connectionreferences?$select=connectionreferencelogicalname",
        changes=raised,
    )
    answer = await posted(travel, content, kind, "odata.continue-on-error")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("multipart/mixed; boundary=batchresponse_")
    assert answer.text.count("HTTP/1.1 200 OK") == 3
    assert '"version":"1.0"' in answer.text
    assert "cts_Mail" in answer.text
    assert "Content-ID: 7" in answer.text
    assert answer.text.count("HTTP/1.1 404 Error") == 1


async def test_a_batch_ends_at_its_first_failure(qa: Asked) -> None:
    content, kind = batched("GET WhoAmI", "GET nothing", "GET WhoAmI")
    assert (await posted(qa, content, kind)).text.count("HTTP/1.1") == 2
    assert (await posted(qa, content, kind, "odata.continue-on-error")).text.count("HTTP/1.1") == 3


@pytest.mark.parametrize(
    ("content", "kind", "words"),
    [
        (b"{}", "application/json", "no batch"),
        (b"", "multipart/mixed", "no batch"),
        (b"--b1--\r\n", "multipart/mixed; boundary=b1", "no batch|0 requests"),
        (*batched("GET http://elsewhere/api/data/v9.2/WhoAmI"), "not below"),
        (*batched("GET /elsewhere"), "not below"),
        (*batched(*["GET WhoAmI"] * 1001), "1001 requests"),
        (*batched(changes="GET WhoAmI HTTP/1.1\r\n\r\n"), "no room for GET"),
    ],
)
async def test_what_is_no_batch_is_refused(qa: Asked, content: bytes, kind: str, words: str) -> None:
    answer = await posted(qa, content, kind)
    assert answer.status_code in (400, 501)
    message = answer.json()["error"]["message"]
    assert any(word in message for word in words.split("|")), message
