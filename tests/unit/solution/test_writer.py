"""Packages that we write ourselves, and that we rewrite."""

from __future__ import annotations

import hashlib
import zipfile
from io import BytesIO

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelinehost_dataverse.solution import (
    CODE_BY_KIND,
    AppModule,
    CanvasApp,
    Column,
    ComponentKey,
    ConnectionReference,
    EnvironmentVariable,
    Flow,
    OptionSet,
    PackageError,
    Part,
    Role,
    Table,
    VariableType,
    WebResource,
    cloud_flow,
    derived_id,
    diff,
    missing,
    new_manifest,
    normalised,
    read,
    rewrite,
    write,
)
from pipelinehost_dataverse.solution.archive import Archive
from pipelinehost_dataverse.solution.kinds import KEYED_BY_NAME

PARTS: tuple[Part, ...] = (
    Table(
        "cts_Expense",
        (
            Column("cts_Amount", "money", "Amount"),
            Column("cts_Account", lookup="account"),
            Column("cts_Kind", options="cts_kinds"),
        ),
        display_name="Expense",
        forms=("Main",),
        views=("Active expenses",),
    ),
    OptionSet("cts_kinds", ("Travel", "Food")),
    Role("Approver", ("prvReadcts_Expense",)),
    WebResource("cts_/expense.js", b"alert(1)"),
    CanvasApp("cts_scan_1a2b3", "Scan", tables=("cts_expense",)),
    AppModule("cts_expenses", "Expenses", tables=("cts_expense",), roles=("Approver",)),
    ConnectionReference("cts_Mail", "Mail", "For notices", "/providers/Microsoft.PowerApps/apis/shared_x"),
    EnvironmentVariable("cts_Approver", required=True),
    EnvironmentVariable(
        "cts_Limit",
        type=VariableType.NUMBER,
        default="100",
        packaged_value="250",
        packaged_value_id=derived_id("v", "x"),
    ),
    cloud_flow("Approve | expense", connection_references=["cts_Mail"], environment_variables=["cts_Limit"]),
)


def test_what_is_written_is_read() -> None:
    flow_id = derived_id("workflow", "Approve | expense")
    manifest = new_manifest(
        "ContosoExpenses",
        "1.2.3.4",
        managed=True,
        prefix="cts",
        display_name="Expenses",
        description="A demo",
        missing_dependencies=[
            missing(("entity", "account"), ("attribute", "cts_expense.cts_account"), solution="Sales (9.0)"),
            missing(("connectionreference", "cts_Other"), ("workflow", flow_id), display_name="Other"),
        ],
    )
    found = read(write(manifest, *PARTS))
    assert found.manifest.root_components
    assert found.manifest.unique_name == "ContosoExpenses"
    assert found.manifest.display_name == "Expenses"
    assert found.manifest.description == "A demo"
    assert str(found.manifest.version) == "1.2.3.4"
    assert found.manifest.managed
    assert found.manifest.publisher == manifest.publisher
    assert found.manifest.missing_dependencies == manifest.missing_dependencies
    assert [str(c.identity) for c in found.components] == [
        "entity cts_expense",
        "attribute cts_expense.cts_amount",
        "attribute cts_expense.cts_account",
        "attribute cts_expense.cts_kind",
        f"systemform {derived_id('systemform', 'cts_expense.main')}",
        f"savedquery {derived_id('savedquery', 'cts_expense.active expenses')}",
        f"role {derived_id('role', 'Approver')}",
        f"workflow {flow_id}",
        "entityrelationship account_cts_expense_cts_account",
        "optionset cts_kinds",
        "webresource cts_/expense.js",
        "canvasapp cts_scan_1a2b3",
        "sitemap cts_expenses",
        "appmodule cts_expenses",
        "connectionreference cts_mail",
        "environmentvariabledefinition cts_approver",
        "environmentvariabledefinition cts_limit",
        "environmentvariablevalue cts_limit",
    ]
    edges = {(str(d.dependent.identity), str(d.required.identity)) for d in found.dependencies}
    assert {
        ("attribute cts_expense.cts_account", "entity account"),
        ("attribute cts_expense.cts_kind", "optionset cts_kinds"),
        ("appmodule cts_expenses", f"role {derived_id('role', 'Approver')}"),
        ("canvasapp cts_scan_1a2b3", "entity cts_expense"),
        (f"workflow {flow_id}", "connectionreference cts_mail"),
        (f"workflow {flow_id}", "environmentvariabledefinition cts_limit"),
        (f"workflow {flow_id}", "connectionreference cts_other"),
    } <= edges


def test_every_member_is_claimed_and_every_root_is_a_component() -> None:
    found = read(write(new_manifest("A", "1"), *PARTS))
    assert not [c for c in found.components if c.kind == "packagefile"]
    identities = {c.key for c in found.components}
    for root in found.manifest.root_components:
        assert normalised(root.schema_name or root.id) in identities


def test_the_same_parts_give_the_same_bytes() -> None:
    first = write(new_manifest("A", "1"), *PARTS)
    assert hashlib.sha256(first).digest() == hashlib.sha256(write(new_manifest("A", "1"), *PARTS)).digest()
    assert first != write(new_manifest("A", "2"), *PARTS)


def test_a_later_version_has_the_same_components() -> None:
    old = read(write(new_manifest("A", "1"), *PARTS))
    new = read(
        write(new_manifest("A", "2"), *PARTS[1:], Table("cts_Expense", (Column("cts_Amount", "int"),)))
    )
    change = diff(old, new)
    assert {c.kind for c in change.removed} == {"attribute", "systemform", "savedquery", "entityrelationship"}
    assert not change.added
    assert [c.key for c in change.changed] == ["cts_expense", "cts_expense.cts_amount"]


def test_a_patch() -> None:
    found = read(write(new_manifest("A_Patch", "1.2.1", patch_of=("A", "1.2.0.0"))))
    assert found.manifest.parent_solution == "A"
    assert str(found.manifest.parent_version) == "1.2.0.0"
    assert read(write(new_manifest("A", "1"))).manifest.parent_solution is None


def test_other_programs_can_read_it() -> None:
    with zipfile.ZipFile(BytesIO(write(new_manifest("A", "1"), *PARTS))) as archive:
        assert archive.testzip() is None
        assert {"solution.xml", "customizations.xml", "[Content_Types].xml"} < set(archive.namelist())
        assert b'Extension="msapp"' in archive.read("[Content_Types].xml")


def test_what_cannot_be_written() -> None:
    with pytest.raises(TypeError, match="Column is nothing that a package can contain"):
        write(new_manifest("A", "1"), Column("x"))  # type: ignore[arg-type] # on purpose
    with pytest.raises(ValueError, match="not a solution version"):
        new_manifest("A", "one")


def test_rewriting_changes_mode_and_version_only() -> None:
    package = write(new_manifest("A", "1.0.0.1", patch_of=("B", "1.0.0.0")), *PARTS)
    changed = rewrite(package, managed=True, version="1.0.0.2")
    before, after = read(package), read(changed)
    assert after.manifest.managed
    assert str(after.manifest.version) == "1.0.0.2"
    assert str(after.manifest.parent_version) == "1.0.0.0"
    assert after.components == before.components
    old, new = Archive(package), Archive(changed)
    assert {n: old.packed(m) for n, m in old.members.items() if n != "solution.xml"} == {
        n: new.packed(m) for n, m in new.members.items() if n != "solution.xml"
    }
    assert rewrite(changed, managed=True, version="1.0.0.2") is changed
    assert rewrite(package) is package
    assert read(rewrite(package, version="1.0.0.1.".rstrip("."))).sha256 == before.sha256
    assert read(rewrite(package, version="1.0.0.01")).manifest.version == before.manifest.version


def test_rewriting_what_is_no_package() -> None:
    with pytest.raises(PackageError):
        rewrite(b"x", managed=True)
    with pytest.raises(ValueError, match="not a solution version"):
        rewrite(write(new_manifest("A", "1")), version="x")


names = st.from_regex(r"[a-z]{2,5}_[A-Za-z0-9]{1,12}", fullmatch=True)
texts = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"], exclude_characters="\ufffe\uffff"),
    max_size=20,
)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.builds(ConnectionReference, names, texts, texts, names),
        max_size=3,
        unique_by=lambda r: r.logical_name.lower(),
    ),
    st.lists(
        st.builds(
            EnvironmentVariable,
            names,
            texts,
            texts,
            st.sampled_from(VariableType),
            st.none() | texts.filter(bool),
            st.booleans(),
            st.none() | texts,
            st.none() | st.uuids().map(str),
            names,
            names,
            names,
            st.none() | st.integers(0, 1),
        ),
        max_size=3,
        unique_by=lambda v: v.schema_name.lower(),
    ),
    st.lists(
        st.builds(
            Flow,
            st.uuids().map(str),
            texts,
            st.booleans(),
            st.lists(names, max_size=3, unique=True).map(tuple),
            st.just(()),
            st.lists(names, max_size=3, unique=True).map(tuple),
        ),
        max_size=3,
        unique_by=lambda f: f.id,
    ),
)  # fmt: skip
def test_requirements_survive_writing_and_reading(
    references: list[ConnectionReference], variables: list[EnvironmentVariable], flows: list[Flow]
) -> None:
    found = read(write(new_manifest("A", "1"), *references, *variables, *flows))
    shown = [
        ConnectionReference(
            r.logical_name, r.display_name.strip() or r.logical_name, r.description.strip(), r.connector_id
        )
        for r in references
    ]
    assert list(found.connection_references) == shown
    assert list(found.flows) == [
        Flow(f.id, f.name.strip(), f.activated, f.connection_references, (), f.environment_variables)
        for f in flows
    ]
    by_name = {v.schema_name: v for v in found.environment_variables}
    assert len(by_name) == len(variables)
    for variable in variables:
        it = by_name[variable.schema_name]
        assert (it.type, it.required, it.packaged_value, it.packaged_value_id) == (
            variable.type, variable.required, variable.packaged_value, variable.packaged_value_id
        )  # fmt: skip
        assert it.secret_store == variable.secret_store
        assert (it.default or "").strip() == (variable.default or "").strip()


@given(
    st.sampled_from(sorted(set(CODE_BY_KIND) | {"bot", "connectionreference", "msdyn_thing"})),
    names,
    st.uuids(),
)
def test_a_missing_dependency_is_read_as_it_was_meant(kind: str, name: str, id_: object) -> None:
    key = f"{name}.{name}" if kind == "attribute" else name
    if kind in CODE_BY_KIND and kind not in KEYED_BY_NAME:
        key = str(id_)
    dependency = missing((kind, key), ("entity", "a"))
    found = read(write(new_manifest("A", "1", missing_dependencies=[dependency])))
    (read_back,) = found.manifest.missing_dependencies
    assert read_back.required.identity == ComponentKey(kind, key.lower())
    assert read_back.required.solution == "Active"
    assert read_back == dependency
