"""Microsoft's own Python client against the emulator, over https, signed in through its token endpoint."""

import asyncio
import os
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import azure.core.credentials
import azure.core.exceptions
import httpx
import pytest
import trustme
from azure.identity import ClientSecretCredential
from PowerPlatform.Dataverse.client import DataverseClient
from PowerPlatform.Dataverse.core.errors import HttpError, MetadataError
from PowerPlatform.Dataverse.models import col
from tests.e2e.processes import EmulatorProcess

from pipelinehost_dataverse.solution import (
    ConnectionReference,
    EnvironmentVariable,
    VariableType,
    Version,
    WebResource,
    cloud_flow,
    new_manifest,
    write,
)
from pipelinehost_dataverse.webapi import ConnectionParameter, OperationState, WebApi

MAIL = "/providers/Microsoft.PowerApps/apis/shared_office365"
TENANT, CLIENT, SECRET = "contoso.example", "6f1d3c0e-4a52-4d0b-9f0e-9f6a3d5c2b17", "it's a secret&=+"
PACKAGE = write(
    new_manifest("Expenses", "1.2.3.4", managed=True, display_name="Contoso expenses"),
    ConnectionReference("cts_Mail", "Mail", "", MAIL),
    EnvironmentVariable("cts_Approver", "Approver", "", VariableType.STRING, "boss", required=True),
    EnvironmentVariable("cts_Limit", "Limit", "", VariableType.NUMBER, "100", False, "250"),
    *(WebResource(f"cts_/page{n}.html", b"<p/>") for n in range(7)),
    cloud_flow("Approve", connection_references=["cts_Mail"], environment_variables=["cts_Approver"]),
)


@dataclass
class Served:
    """The emulator with one environment, and what is needed to sign in to it."""

    origin: str
    authority: str
    certificates: Path

    def credential(self, secret: str = SECRET) -> Any:
        return ClientSecretCredential(
            TENANT, CLIENT, secret, authority=self.authority, disable_instance_discovery=True
        )


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("https")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    certificate = authority.issue_cert("127.0.0.1", "localhost")
    certificate.private_key_pem.write_to_path(folder / "key.pem")
    certificate.cert_chain_pems[0].write_to_path(folder / "certificate.pem")
    (folder / "clients").write_text(f"# who may sign in\n{CLIENT}={SECRET}\n")
    options = ("--certificate", str(folder / "certificate.pem"), "--key", str(folder / "key.pem"))
    signing_in = ("--require-token", "--clients", str(folder / "clients"))
    process = EmulatorProcess(folder, "qa", options=(*options, *signing_in))
    process.start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REQUESTS_CA_BUNDLE", str(folder / "ca.pem"))
        for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
            patch.delenv(name)
        origin = f"https://{process.address}"
        yield Served(f"{origin}/qa", origin, folder / "ca.pem")
    assert process.stop() == 0


@pytest.fixture
async def installed(served: Served) -> None:
    """The package, imported with our own connector over the same https and token endpoint."""

    async def token(scope: str, *, renew: bool = False) -> str:
        found: str = served.credential().get_token(scope).token
        return found

    transport = httpx.AsyncHTTPTransport(verify=ssl.create_default_context(cafile=str(served.certificates)))
    async with WebApi(served.origin, connectivity_url=served.origin, token=token, transport=transport) as web:
        if await web.solution("Expenses"):
            return
        await web.create_connection(MAIL, "Mail of finance", connection_id="mail-1")
        intent = await web.prepare_import("Expenses", Version.parse("1.2.3.4"), upgrade=True)
        operation = await web.start_import(
            PACKAGE, intent, parameters=[ConnectionParameter("cts_Mail", "mail-1", MAIL)]
        )
        async with asyncio.timeout(20):
            progress = await web.import_progress(operation)
            while progress.state is OperationState.RUNNING:
                await asyncio.sleep(0.05)
                progress = await web.import_progress(operation)
        assert progress.state is OperationState.SUCCEEDED, progress


@pytest.fixture
def client(served: Served, installed: None) -> Iterator[DataverseClient]:
    with DataverseClient(served.origin, served.credential()) as found:
        yield found


def test_solutions_are_read(client: DataverseClient) -> None:
    found = client.records.list(
        "solution",
        select=["uniquename", "version", "ismanaged"],
        filter="uniquename eq 'Expenses'",
        expand=["publisherid($select=uniquename)"],
        include_annotations="*",
    )
    (solution,) = list(found)
    assert (solution["uniquename"], solution["version"], solution["ismanaged"]) == (
        "Expenses",
        "1.2.3.4",
        True,
    )
    assert solution["publisherid"]["uniquename"] == "contoso"
    assert solution["ismanaged@OData.Community.Display.V1.FormattedValue"] == "Yes"
    same = client.records.retrieve("solution", solution["solutionid"], select=["friendlyname"])
    assert same is not None
    assert same["friendlyname"] == "Contoso expenses"
    assert client.records.retrieve("solution", CLIENT) is None


def test_environment_variables_are_read(client: DataverseClient) -> None:
    navigation = "environmentvariabledefinition_environmentvariablevalue"
    found = client.records.list(
        "environmentvariabledefinition",
        select=["schemaname", "defaultvalue", "type"],
        filter="startswith(schemaname,'cts_')",
        orderby=["schemaname desc"],
        expand=[f"{navigation}($select=value)"],
    )
    assert [
        (v["schemaname"], v["defaultvalue"], v["type"], [value["value"] for value in v[navigation]])
        for v in found
    ] == [("cts_Limit", "100", 100000001, ["250"]), ("cts_Approver", "boss", 100000000, [])]
    value = client.query.builder("environmentvariablevalue").where(col("value") == "250").execute_pages()
    assert [row["schemaname"] for page in value for row in page] == ["cts_Limit"]


def test_connection_references_are_read(client: DataverseClient) -> None:
    query = (
        client.query.builder("connectionreference")
        .select("connectionreferencelogicalname", "connectorid", "connectionid")
        .where(col("connectionreferencelogicalname").in_(["cts_Mail", "cts_Other"]))
        .order_by("connectionreferencelogicalname")
    )
    (row,) = [row for page in query.execute_pages() for row in page]
    assert (row["connectionreferencelogicalname"], row["connectorid"], row["connectionid"]) == (
        "cts_Mail",
        MAIL,
        "mail-1",
    )


def test_pages_batches_and_frames(client: DataverseClient) -> None:
    pages = list(
        client.records.list_pages("solution", select=["uniquename"], page_size=100, orderby=["uniquename"])
    )
    names = [row["uniquename"] for page in pages for row in page]
    assert len(pages) == 5
    assert len(names) == len(set(names)) == 428
    (page,) = client.query.builder("solution").select("uniquename").top(5).execute_pages()
    assert len(page.to_dataframe()) == 5
    batch = client.batch.new()
    batch.records.list("connectionreference", select=["connectionid"])
    batch.records.list("environmentvariabledefinition", filter="schemaname eq 'cts_Limit'")
    batch.tables.get("solution")
    answer = batch.execute()
    assert [r.status_code for r in answer.responses] == [200, 200, 200]
    data = [response.data or {} for response in answer.responses]
    assert data[0]["value"][0]["connectionid"] == "mail-1"
    assert data[1]["value"][0]["defaultvalue"] == "100"


def test_tables_are_described(client: DataverseClient) -> None:
    solution = client.tables.get("solution")
    assert solution is not None
    assert solution.entity_set_name == "solutions"
    assert client.tables.get("nothing") is None
    names = {row["LogicalName"] for row in client.tables.list(select=["LogicalName"])}
    assert {"solution", "connectionreference", "environmentvariablevalue"} <= names
    with pytest.raises(MetadataError):
        list(client.records.list("nothing"))


def test_what_is_not_modelled_says_so(client: DataverseClient) -> None:
    with pytest.raises(HttpError, match="not modelled") as caught:
        client.records.create("publisher", {"uniquename": "x"})
    assert caught.value.status_code == 501
    with pytest.raises(HttpError, match="'sql' is not modelled"):
        client.query.sql("SELECT uniquename FROM solution")


def test_a_wrong_secret_gets_no_token(served: Served) -> None:
    with pytest.raises(azure.core.exceptions.ClientAuthenticationError, match="AADSTS7000215"):
        served.credential("wrong").get_token(f"{served.authority}/.default")


def test_a_token_for_elsewhere_gets_no_answer(served: Served) -> None:
    class Elsewhere:
        def get_token(self, *scopes: str, **options: Any) -> azure.core.credentials.AccessToken:
            return azure.core.credentials.AccessToken("e30.e30.x", 2**31)

    with DataverseClient(served.origin, Elsewhere()) as client, pytest.raises(HttpError) as caught:
        client.records.list("solution")
    assert caught.value.status_code == 401
