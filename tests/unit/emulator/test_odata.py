"""Queries: what is understood, and what is refused by name."""

import contextlib
import sqlite3
from pathlib import Path

import pytest
from tests.unit.emulator.asked import OFFICE, Asked, package

from pipelinehost_dataverse.emulator.errors import DataverseError
from pipelinehost_dataverse.emulator.odata import Table, arguments, nested_options, plan
from pipelinehost_dataverse.solution import ConnectionReference, EnvironmentVariable, VariableType, missing
from pipelinehost_dataverse.solution import Table as TablePart

KIN = {"kin": ("things", "id", "up", True), "parent": ("things", "up", "id", False)}
THING = Table(
    "things",
    "thing",
    "id",
    {"id": "guid", "up": "guid", "name": "string", "nick": "string", "size": "integer", "on": "boolean"},
    "SELECT * FROM thing",
    KIN,
)
ALL = {"things": THING}


@pytest.mark.parametrize(
    ("text", "sql", "parameters"),
    [
        ("name eq 'O''Hara'", '"name" = ? COLLATE NOCASE', ("O'Hara",)),
        ("size gt 3 and (on eq true or not name ne null)", None, (3, 1)),
        ("contains(name,'50%')", "\"name\" LIKE ? ESCAPE '\\'", ("%50\\%%",)),
        ("startswith(name,'a') or endswith(name,'b')", None, ("a%", "%b")),
        ("id eq 6F1D3C0E-4A52-5D0B-9F0E-9F6A3D5C2B17", '"id" = ?', ("6f1d3c0e-4a52-5d0b-9f0e-9f6a3d5c2b17",)),
    ],
)
def test_filters_become_sql_with_parameters(
    text: str, sql: str | None, parameters: tuple[object, ...]
) -> None:
    query = plan(THING, {"$filter": text}, ALL)
    assert query.parameters == parameters
    assert sql is None or sql in query.sql


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"$filter": "size eq 'x'"}, "incompatible types"),
        ({"$filter": "id eq '6f1d3c0e-4a52-5d0b-9f0e-9f6a3d5c2b17'"}, "incompatible types"),
        ({"$filter": "colour eq 'x'"}, "property named 'colour'"),
        ({"$filter": "name eq 'x' name"}, "Syntax error"),
        ({"$filter": "name eq 'x"}, "Syntax error"),
        ({"$filter": "(name eq 'x'"}, "Syntax error"),
        ({"$filter": "name"}, "Syntax error"),
        ({"$filter": "year(name) eq 3"}, "'year' in \\$filter is not modelled"),
        ({"$filter": '1=1; DROP TABLE x"'}, "Syntax error"),
        ({"$select": 'name"'}, "property named"),
        ({"$orderby": "name; drop"}, "Syntax error|property named"),
        ({"$expand": "nothing"}, "property named 'nothing'"),
        ({"$apply": "x"}, "'\\$apply' is not modelled"),
        ({"$top": "many"}, "non-negative number"),
        ({"$filter": "contains(size,'1')"}, "takes text"),
        ({"$filter": "size eq 99999999999999999999"}, "no value of 'size'"),
        ({"$filter": "size eq name"}, "incompatible types"),
        ({"$filter": "kin/name eq 'x'"}, "is a collection; use 'kin/any"),
        ({"$filter": "parent/any(x:x/size eq 1)"}, "is one row"),
        ({"$filter": "kin/all()"}, "Syntax error"),
        ({"$filter": "kin/any(x:x/colour eq 1)"}, "property named 'colour'"),
        ({"$filter": "In(PropertyName='size',PropertyValues=[])"}, "1 to 500 values"),
        ({"$filter": "In(PropertyName='size',PropertyValues=['x'])"}, "no value of 'size'"),
        ({"$filter": "Between(PropertyName='size',PropertyValues=['1'])"}, "two values"),
        ({"$filter": "(" * 101 + "on eq true" + ")" * 101}, "nested more than 100"),
        ({"$filter": " or ".join(["size eq 1"] * 501)}, "exceeded the maximum limit of 500"),
        ({"$expand": ",".join(["kin"] * 16)}, "more than 15"),
    ],
)
def test_other_queries_are_refused_by_name(options: dict[str, str], words: str) -> None:
    with pytest.raises(DataverseError, match=words):
        plan(THING, options, ALL)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("name eq 'ANNA'", "anna"),
        ("name ne 'anna'", "bert carl"),
        ("not (nick eq 'x')", "bert carl"),
        ("nick ne 'x'", "bert carl"),
        ("nick eq null", "carl"),
        ("not (nick ne null)", "carl"),
        ("name eq nick", "bert"),
        ("size gt 1 and size le 3", "bert carl"),
        ("not not (size gt 2)", "carl"),
        ("Microsoft.Dynamics.CRM.In(PropertyName='name',PropertyValues=['Anna','CARL'])", "anna carl"),
        ('Microsoft.Dynamics.CRM.NotIn(PropertyName=\'size\',PropertyValues=["1","2"])', "carl"),
        ("Microsoft.Dynamics.CRM.Between(PropertyName='size',PropertyValues=['2','3'])", "bert carl"),
        ("parent/name eq 'anna'", "bert carl"),
        ("parent/parent/name eq null", "anna bert carl"),
        ("parent/name eq null", "anna"),
        ("parent/name ne 'x' and contains(parent/name,'NN')", "bert carl"),
        ("kin/any()", "anna"),
        ("kin/any(k:k/name eq 'bert')", "anna"),
        ("kin/any(k:k/parent/name eq 'anna' and k/size eq 3)", "anna"),
        ("kin/all(k:k/size gt 2)", "bert carl"),
        ("kin/all(k:k/size ge 2)", "anna bert carl"),
        ("kin/all(k:k/nick eq 'bert')", "bert carl"),
        ("not kin/any(k:k/on eq true)", "bert carl"),
    ],
)
def test_filters_find_what_they_should(text: str, names: str) -> None:
    ids = [f"00000000-0000-0000-0000-00000000000{n}" for n in range(3)]
    with contextlib.closing(sqlite3.connect(":memory:")) as db:
        db.execute("CREATE TABLE thing (id, up, name, nick, size, 'on')")
        rows = [(None, "anna", "x", 1, 0), (ids[0], "bert", "bert", 2, 1), (ids[0], "carl", None, 3, 0)]
        db.executemany(
            "INSERT INTO thing VALUES (?, ?, ?, ?, ?, ?)", [(ids[n], *r) for n, r in enumerate(rows)]
        )
        query = plan(THING, {"$filter": text, "$select": "name"}, ALL)
        found = db.execute(query.sql, query.parameters).fetchall()
    assert [row[query.columns.index("name")] for row in found] == names.split()


def test_arguments_come_plain_or_by_alias() -> None:
    query = {"@a": "'it''s'", "@b": "5"}
    assert arguments("Name=@a,Number=@b,Other='x,y'", query) == {
        "Name": "it's",
        "Number": "5",
        "Other": "x,y",
    }
    with pytest.raises(DataverseError, match="'@c' of 'Name' has no value"):
        arguments("Name=@c", query)
    assert nested_options("$select=a,b;$filter=c eq ';'") == {"$select": "a,b", "$filter": "c eq ';'"}


async def test_reads_select_filter_expand_count_and_page(qa: Asked) -> None:
    variable = EnvironmentVariable("cts_Limit", "Limit", "", VariableType.NUMBER, "1", True, "5")
    await qa.install(package("Travel", "1.0", TablePart("cts_trip"), variable))
    rows = await qa.get(
        "solutions?$filter=uniquename eq 'travel'&$select=version&$expand=publisherid($select=uniquename)"
    )
    publisher = rows[0].pop("publisherid")
    assert rows[0].keys() == {"solutionid", "version"}
    assert publisher["uniquename"] == "contoso"
    definition = (
        await qa.get(
            "environmentvariabledefinitions?$select=schemaname"
            "&$expand=environmentvariabledefinition_environmentvariablevalue($select=value)"
        )
    )[0]
    assert definition["environmentvariabledefinition_environmentvariablevalue"][0]["value"] == "5"
    answer = await qa.request(
        "GET", "solutions?$select=uniquename&$count=true&$top=3&$orderby=uniquename desc"
    )
    assert answer.json()["@odata.count"] == 426 + 2
    names = [row["uniquename"] for row in answer.json()["value"]]
    assert len(names) == 3
    assert names == sorted(names, reverse=True)
    assert len(await qa.get("solutions?$filter=isvisible eq true")) == 1


async def test_components_are_told_by_every_table_that_has_them(qa: Asked, tmp_path: Path) -> None:
    need = missing(("entity", "cts_base"), ("entity", "cts_trip"))
    mail = ConnectionReference("cts_Mail", "Mail", "", OFFICE)
    await qa.install(package("Base", "1.0", TablePart("cts_base")))
    await qa.install(package("Travel", "1.0", TablePart("cts_trip"), mail, missing=[need]))
    row = await qa.solution("Travel")
    where = f"$filter=_solutionid_value eq {row['solutionid']}"
    rows = await qa.get(f"solutioncomponents?{where}&$expand=solutionid($select=uniquename)")
    assert {r["solutionid"]["uniquename"] for r in rows} == {"Travel"}
    assert len({r["solutioncomponentid"] for r in rows}) == len(rows) == len(await qa.components("Travel"))
    definitions = await qa.get("solutioncomponentdefinitions?$filter=name eq 'connectionreference'")
    code = definitions[0]["solutioncomponenttype"]
    assert code >= 10_000
    assert code in {r["componenttype"] for r in rows}
    assert await qa.get("RetrieveMissingDependencies(SolutionUniqueName='Travel')") == []
    base = await qa.solution("Base")
    code, message = await qa.error("DELETE", f"solutions({base['solutionid']})")
    assert code == "0x8004f01d"
    assert "DependencyCount : 1 " in message
    summary = f"msdyn_solutioncomponentsummaries?$filter=msdyn_solutionid eq {row['solutionid']}"
    reference = (await qa.get(f"{summary} and msdyn_componentlogicalname eq 'connectionreference'"))[0]
    assert (reference["msdyn_name"], reference["msdyn_schemaname"]) == ("Mail", "cts_Mail")
    async with Asked.open(tmp_path / "other.sqlite") as other:
        await other.install(package("Travel", "1.0", TablePart("cts_trip"), mail))
        assert (await other.get("connectionreferences"))[0]["connectionreferenceid"] != reference[
            "msdyn_objectid"
        ]


async def test_the_history_is_a_virtual_table_that_cannot_be_sorted(qa: Asked) -> None:
    assert "orderby" in (await qa.error("GET", "msdyn_solutionhistories?$orderby=msdyn_starttime"))[1]


async def test_who_and_what_the_environment_is(qa: Asked) -> None:
    who = await qa.get("WhoAmI()")
    detail = (
        await qa.get(
            "RetrieveCurrentOrganization(AccessType=@p)?@p=Microsoft.Dynamics.CRM.EndpointAccessType'Default'"
        )
    )["Detail"]
    assert detail["OrganizationId"] == who["OrganizationId"]
    assert (detail["FriendlyName"], detail["Geo"]) == ("qa", "Europe")
    assert (await qa.get("RetrieveVersion()"))["Version"] == detail["OrganizationVersion"]


@pytest.mark.parametrize(
    ("method", "path", "status", "words"),
    [
        ("GET", "accounts", 404, "segment 'accounts'"),
        ("GET", "$entity", 501, "entity"),
        ("GET", "Attributes", 501, "Attributes"),
        ("GET", "cts_trips", 404, "segment 'cts_trips'"),
        ("POST", "$batch", 400, "no batch"),
        ("GET", "solutions/uniquename", 404, "segment 'uniquename'"),
        ("GET", "systemusers(00000000-0000-0000-0000-000000000000)/fullname", 404, "Does Not Exist"),
        ("GET", "solutions?sql=SELECT 1", 501, "'sql' is not modelled"),
        ("GET", "solutions?fetchXml=<fetch/>", 501, "'fetchXml' is not modelled"),
        ("POST", "solutions", 501, "POST of 'solutions'"),
        ("GET", "ImportSolution", 405, "does not answer GET"),
        ("GET", "solutions(name)", 400, "not a GUID"),
        ("GET", "solutions(00000000-0000-0000-0000-000000000000)", 404, "Does Not Exist"),
        ("GET", "http://environment/api/data/v8.2/WhoAmI", 404, "no Web API v8.2"),
        ("GET", "http://environment/elsewhere", 404, "elsewhere"),
        ("GET", "http://environment/connectivity/connections", 400, "api-version=1"),
        ("DELETE", "http://environment/connectivity/connections/x?api-version=1", 404, "no connection 'x'"),
        ("GET", "RetrieveMissingDependencies(SolutionUniqueName='x')", 404, "Does Not Exist"),
    ],
)
async def test_unknown_addresses_get_an_error_of_dataverse(
    qa: Asked, method: str, path: str, status: int, words: str
) -> None:
    assert words in (await qa.error(method, path, {} if method == "POST" else None, status=status))[1]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"{", "no JSON"),
        (b"[]", "no JSON object"),
        (b'{"CustomizationFile": "%%"}', "not base64"),
        (b'{"CustomizationFile": "aGVsbG8="}', "solution file is invalid"),
        (b"{}", "'CustomizationFile' is missing"),
        (b'{"CustomizationFile": ""}', "'CustomizationFile' is missing"),
        (b'{"CustomizationFile": "aGVsbG8=", "Other": 1}', "'Other' of StageSolution"),
    ],
)
async def test_bad_bodies_get_an_error_that_says_why(qa: Asked, body: bytes, words: str) -> None:
    answer = await qa.post("StageSolution", body)
    assert answer.status_code in (400, 501)
    assert words in answer.json()["error"]["message"]


async def test_connections_are_created_listed_and_deleted(qa: Asked) -> None:
    await qa.connect("mine")
    address = "http://environment/connectivity/connections"
    rows = await qa.get(f"{address}?api-version=1")
    assert [row["name"] for row in rows] == ["mine"]
    assert rows[0]["properties"]["statuses"] == [{"status": "Connected"}]
    again = {"name": "MINE", "properties": {"apiId": rows[0]["properties"]["apiId"]}}
    assert "already" in (await qa.error("POST", f"{address}?api-version=1", again, status=409))[1]
    wrong = {"properties": {"apiId": "shared_x"}}
    assert "apis/NAME" in (await qa.error("POST", f"{address}?api-version=1", wrong))[1]
    assert (await qa.request("DELETE", f"{address}/mine?api-version=1")).status_code == 204
    assert await qa.get(f"{address}?api-version=1") == []
