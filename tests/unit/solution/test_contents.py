"""Components, edges and requirements, on packages laid out by hand in these tests."""
# ruff: noqa: E501 # XML is easier to read in one piece

from __future__ import annotations

import json

import pytest

from pipelinehost_dataverse.solution import (
    ComponentKey,
    PackageError,
    Solution,
    VariableType,
    diff,
    new_manifest,
    read,
    settings_template,
    write,
)
from pipelinehost_dataverse.solution.archive import Archive, pack

EMPTY = Archive(write(new_manifest("Contoso", "1.0")))
A = "00000000-0000-0000-0000-00000000000a"
B = "00000000-0000-0000-0000-00000000000b"


def solution(customizations: str = "", files: dict[str, str | bytes] | None = None) -> Solution:
    """A package with this text inside the root of customizations.xml, and these files."""
    members = {name: EMPTY.read(member) for name, member in EMPTY.members.items()}
    members["customizations.xml"] = (
        f'<ImportExportXml xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">{customizations}</ImportExportXml>'
    ).encode()
    for name, text in (files or {}).items():
        members[name] = text if isinstance(text, bytes) else text.encode()
    return read(pack(members.items()))


def keys(found: Solution) -> list[tuple[str, str]]:
    return [(c.kind, c.key) for c in found.components]


def edges(found: Solution) -> set[tuple[str, str]]:
    return {(str(d.dependent.identity), str(d.required.identity)) for d in found.dependencies}


TABLE = f"""<Entities><Entity><Name LocalizedName="Thing">cts_Thing</Name>
  <EntityInfo><entity Name="cts_Thing" unmodified="1"><attributes>
    <attribute PhysicalName="cts_Colour"><Type>picklist</Type><LogicalName>cts_colour</LogicalName>
      <OptionSetName>cts_Colours</OptionSetName><displaynames><displayname description="Colour"/></displaynames>
    </attribute>
    <attribute PhysicalName="cts_Owner"><Type>lookup</Type><LogicalName>cts_owner</LogicalName></attribute>
    <attribute PhysicalName="cts_Total"><LogicalName>cts_total</LogicalName>
      <FormulaDefinitionFileName>/Formulas/cts_thing-cts_total.xaml</FormulaDefinitionFileName></attribute>
  </attributes><EntityKeys><EntityKey><LogicalName>cts_code</LogicalName></EntityKey></EntityKeys></entity></EntityInfo>
  <FormXml><forms type="main"><systemform><formid>{{{A.upper()}}}</formid>
    <form><formLibraries><Library name="cts_/a.js"/></formLibraries></form>
    <LocalizedNames><LocalizedName description="Main"/></LocalizedNames></systemform></forms></FormXml>
  <SavedQueries><savedqueries><savedquery><savedqueryid>{{{B}}}</savedqueryid></savedquery></savedqueries></SavedQueries>
  <Visualizations><visualization><savedqueryvisualizationid>{{{B}}}</savedqueryvisualizationid></visualization></Visualizations>
  <RibbonDiffXml><CustomActions><CustomAction Id="x"/></CustomActions><CommandDefinitions/></RibbonDiffXml>
  <CustomControlDefaultConfigs><CustomControlDefaultConfig><PrimaryEntityTypeCode>1</PrimaryEntityTypeCode>
  </CustomControlDefaultConfig></CustomControlDefaultConfigs></Entity></Entities>
<EntityRelationships><EntityRelationship Name="User_Thing"><EntityRelationshipType>OneToMany</EntityRelationshipType>
  <ReferencingEntityName>cts_Thing</ReferencingEntityName><ReferencedEntityName>SystemUser</ReferencedEntityName>
  <ReferencingAttributeName>cts_Owner</ReferencingAttributeName></EntityRelationship>
  <EntityRelationship Name="Many"><FirstEntityName>cts_Thing</FirstEntityName><SecondEntityName>team</SecondEntityName>
  </EntityRelationship></EntityRelationships>"""


def test_a_table_and_what_belongs_to_it() -> None:
    found = solution(TABLE, {"Formulas/cts_thing-cts_total.xaml": "<x/>"})
    assert keys(found) == [
        ("entity", "cts_thing"),
        ("attribute", "cts_thing.cts_colour"),
        ("attribute", "cts_thing.cts_owner"),
        ("attribute", "cts_thing.cts_total"),
        ("entitykey", "cts_thing.cts_code"),
        ("systemform", A),
        ("savedquery", B),
        ("savedqueryvisualization", B),
        ("ribboncustomization", "cts_thing"),
        ("customcontroldefaultconfig", "cts_thing"),
        ("entityrelationship", "user_thing"),
        ("entityrelationship", "many"),
    ]
    table, colour, _, total, *_ = found.components
    assert (table.name, table.schema_name, table.attributes["unmodified"]) == ("Thing", "cts_Thing", "1")
    assert (colour.name, colour.schema_name) == ("Colour", "cts_Colour")
    assert colour.parent == ComponentKey("entity", "cts_thing") == table.identity
    assert total.files == ("Formulas/cts_thing-cts_total.xaml",)
    assert edges(found) == {
        *((f"{kind} {key}", "entity cts_thing") for kind, key in keys(found)[1:]),
        ("attribute cts_thing.cts_colour", "optionset cts_colours"),
        (f"systemform {A}", "webresource cts_/a.js"),
        ("entityrelationship user_thing", "entity systemuser"),
        ("entityrelationship user_thing", "attribute cts_thing.cts_owner"),
        ("attribute cts_thing.cts_owner", "entity systemuser"),
        ("entityrelationship many", "entity team"),
    }


def test_a_tables_digest_leaves_out_its_parts_and_every_part_has_its_own() -> None:
    before = solution(TABLE, {"Formulas/cts_thing-cts_total.xaml": "<x/>"})
    column = solution(TABLE.replace("lookup", "customer"), {"Formulas/cts_thing-cts_total.xaml": "<x/>"})
    assert [c.key for c in diff(before, column).changed] == ["cts_thing.cts_owner"]
    file = solution(TABLE, {"Formulas/cts_thing-cts_total.xaml": "<y/>"})
    assert [c.key for c in diff(before, file).changed] == ["cts_thing.cts_total"]
    table = solution(
        TABLE.replace('Name="cts_Thing" unm', 'Name="cts_Thing" new="1" unm'),
        {"Formulas/cts_thing-cts_total.xaml": "<x/>"},
    )
    assert [c.identity for c in diff(before, table).changed] == [ComponentKey("entity", "cts_thing")]
    indented = solution(
        TABLE.replace("\n", "\n\n \t") + "<!-- a comment -->", {"Formulas/cts_thing-cts_total.xaml": "<x/>"}
    )
    assert not diff(before, indented)
    assert not diff(before, before)


def test_diff_is_by_identity() -> None:
    old = solution('<Roles><Role id="1" name="a"/><Role id="2" name="b"/></Roles>')
    new = solution('<Roles><Role id="2" name="c"/><Role id="3" name="d"/></Roles>')
    found = diff(old, new)
    assert [[c.key for c in group] for group in (found.added, found.removed, found.changed)] == [
        ["3"],
        ["1"],
        ["2"],
    ]
    assert found.changed[0].name == "c"
    assert found.removed[0].name == "a"
    assert found


@pytest.mark.parametrize(
    ("text", "kind", "key"),
    [
        (f'<FieldSecurityProfiles><FieldSecurityProfile fieldsecurityprofileid="{{{A}}}" name="n"/></FieldSecurityProfiles>', "fieldsecurityprofile", A),
        ("<optionsets><optionset Name='cts_Set'/></optionsets>", "optionset", "cts_set"),
        ("<CustomControls><CustomControl><Name>cts_x.Y</Name></CustomControl></CustomControls>", "customcontrol", "cts_x.y"),
        (f"<Dashboards><Dashboard><FormId>{{{A}}}</FormId></Dashboard></Dashboards>", "systemform", A),
        ("<EntityImageConfigs><EntityImageConfig><parententitylogicalname>Account</parententitylogicalname></EntityImageConfig></EntityImageConfigs>", "entityimageconfig", "account"),
        ("<AttributeImageConfigs><AttributeImageConfig><attributelogicalname>B</attributelogicalname><parententitylogicalname>A</parententitylogicalname></AttributeImageConfig></AttributeImageConfigs>", "attributeimageconfig", "a.b"),
        ("<EntityMaps><EntityMap><EntitySource>A</EntitySource><EntityTarget>B</EntityTarget></EntityMap></EntityMaps>", "entitymap", "a.b"),
        ("<RibbonDiffXml><CustomActions><HideCustomAction/></CustomActions></RibbonDiffXml>", "ribboncustomization", "application"),
        ("<SiteMap><SiteMap><Area/></SiteMap></SiteMap>", "sitemap", "default"),
        (f"<Templates><EmailTemplates><EmailTemplate><templateid>{{{A}}}</templateid></EmailTemplate></EmailTemplates></Templates>", "template", A),
        # Sections that no table knows
        (f"<ConnectionRoles><ConnectionRole><connectionroleid>{{{A}}}</connectionroleid><name>n</name></ConnectionRole></ConnectionRoles>", "connectionrole", A),
        ("<msdyn_helppages><msdyn_helppage msdyn_path='A/B'><x/></msdyn_helppage></msdyn_helppages>", "msdyn_helppage", "a/b"),
        ("<Zs><Z uniquename='U' name='n'/></Zs>", "z", "u"),
        ("<Zs><Z><Name>N</Name></Z></Zs>", "z", "n"),
        ("<Zs><Z b.key='2' a='1'/></Zs>", "z", "2.1"),
        ("<Settings>on</Settings>", "settings", ""),
    ],
)  # fmt: skip
def test_sections(text: str, kind: str, key: str) -> None:
    ((found_kind, found_key),) = keys(solution(text))
    assert found_kind == kind
    assert found_key == key or (not key and len(found_key) == 64)  # only its digest tells it from another


def test_empty_frames_are_no_components() -> None:
    frame = "<Name>a</Name><RibbonDiffXml><CustomActions/><RuleDefinitions><EnableRules/></RuleDefinitions></RibbonDiffXml>"
    assert keys(
        solution(f"<Entities><Entity>{frame}</Entity></Entities><Roles/><RibbonDiffXml/><SiteMap/>")
    ) == [("entity", "a")]
    assert keys(solution("<Languages><Language>1033</Language></Languages>")) == []


def test_two_definitions_of_one_component_count_once() -> None:
    once = solution('<Roles><Role id="1" name="a"/></Roles>')
    twice = solution('<Roles><Role id="1" name="a"/><Role id="1" name="b"/></Roles>')
    assert keys(twice) == [("role", "1")]
    assert len(diff(once, twice).changed) == 1


def test_folder_components_nested_ones_and_their_files() -> None:
    found = solution(
        files={
            "bots/Cts_Bot/bot.xml": '<bot schemaname="Cts_Bot"><name>Bot</name></bot>',
            "bots/Cts_Bot/configuration.json": "{}",
            "botcomponents/cts_bot.topic.A/botcomponent.xml": '<botcomponent schemaname="cts_bot.topic.A">'
            "<parentbotid><schemaname>Cts_Bot</schemaname></parentbotid></botcomponent>",
            "botcomponents/cts_bot.topic.A/data": "kind: x",
            "customapis/cts_Api/customapi.xml": '<customapi uniquename="cts_Api"/>',
            "customapis/cts_Api/customapiresponseproperties/P/customapiresponseproperty.xml": "<customapiresponseproperty "
            'uniquename="P"><displayname default="Out"/></customapiresponseproperty>',
            "Assets/botcomponent_workflowset.xml": "<botcomponent_workflowset><botcomponent_workflow "
            f'botcomponentid.schemaname="cts_bot.topic.A" workflowid.workflowid="{A.upper()}"/></botcomponent_workflowset>',
            "powerpagecomponents/1/powerpagecomponent.xml": "<powerpagecomponent powerpagecomponentid='1'/>",
            "powerpagecomponents/1/filecontent/page.xml": "<!DOCTYPE html><html/>",
            "odd/file.xml": "<not-even-xml",
            "readme.md": "hello",
        }
    )
    by_key = {c.identity: c for c in found.components}
    assert set(keys(found)) == {
        ("bot", "cts_bot"),
        ("botcomponent", "cts_bot.topic.a"),
        ("customapi", "cts_api"),
        ("customapiresponseproperty", "cts_api.p"),
        ("botcomponent_workflow", f"cts_bot.topic.a.{A}"),
        ("powerpagecomponent", "1"),
        ("packagefile", "odd/file.xml"),
        ("packagefile", "readme.md"),
    }
    assert by_key["bot", "cts_bot"].files == ("bots/Cts_Bot/bot.xml", "bots/Cts_Bot/configuration.json")  # type: ignore[index] # equal to a key
    assert by_key["customapiresponseproperty", "cts_api.p"].name == "Out"  # type: ignore[index] # equal to a key
    assert by_key["customapiresponseproperty", "cts_api.p"].parent == ("customapi", "cts_api")  # type: ignore[index] # equal to a key
    assert len(by_key["powerpagecomponent", "1"].files) == 2  # type: ignore[index] # equal to a key
    assert edges(found) == {
        ("botcomponent cts_bot.topic.a", "bot cts_bot"),
        ("customapiresponseproperty cts_api.p", "customapi cts_api"),
        (f"botcomponent_workflow cts_bot.topic.a.{A}", "botcomponent cts_bot.topic.a"),
        (f"botcomponent_workflow cts_bot.topic.a.{A}", f"workflow {A}"),
    }


def test_a_change_in_a_file_changes_its_component_only() -> None:
    files: dict[str, str | bytes] = {
        "bots/b/bot.xml": '<bot schemaname="b"/>',
        "bots/b/configuration.json": "{}",
        "readme.md": "1",
    }
    before = solution(files=files)
    assert [c.kind for c in diff(before, solution(files=files | {"readme.md": "2"})).changed] == [
        "packagefile"
    ]
    assert [
        c.kind for c in diff(before, solution(files=files | {"bots/b/configuration.json": "[]"})).changed
    ] == ["bot"]


def flow(definition: object, category: int = 5) -> tuple[str, dict[str, str | bytes]]:
    text = (
        f'<Workflows><Workflow WorkflowId="{{{A}}}" Name="F"><JsonFileName>/Workflows/F-{A.upper()}.json</JsonFileName>'
        f"<Category>{category}</Category><StateCode>1</StateCode><PrimaryEntity>none</PrimaryEntity></Workflow></Workflows>"
    )
    return text, {f"Workflows/F-{A.upper()}.json": json.dumps(definition)}


DEFINITION = {
    "properties": {
        "connectionReferences": {
            "a": {
                "connection": {"connectionReferenceLogicalName": "cts_Mail"},
                "api": {"name": "shared_office365"},
            },
            "b": {
                "connection": {"connectionReferenceLogicalName": "cts_Mail"},
                "api": {"name": "shared_office365"},
            },
            "c": {"connection": {}, "api": {"name": "shared_old"}},
            "d": {"connection": {}, "id": "/providers/Microsoft.PowerApps/apis/shared_older"},
            "e": {"connection": {}},
            "f": "nonsense",
        },
        "definition": {
            "parameters": {
                "$connections": {"defaultValue": {}},
                "Url (cts_Url)": {"metadata": {"schemaName": "cts_Url"}},
                "Old way (cts_Old)": {"type": "String"},
                "Twice": {"metadata": {"schemaName": "cts_Url"}},
            }
        },
    }
}


def test_flows() -> None:
    found = solution(*flow(DEFINITION))
    (it,) = found.flows
    assert (it.id, it.name, it.activated) == (A, "F", True)
    assert it.connection_references == ("cts_Mail",)
    assert it.connectors == ("shared_old", "shared_older")
    assert it.environment_variables == ("cts_Url", "cts_Old")
    assert edges(found) == {
        (f"workflow {A}", "connectionreference cts_mail"),
        (f"workflow {A}", "connector shared_old"),
        (f"workflow {A}", "connector shared_older"),
        (f"workflow {A}", "environmentvariabledefinition cts_url"),
        (f"workflow {A}", "environmentvariabledefinition cts_old"),
    }
    assert found.components[0].files == (f"Workflows/F-{A.upper()}.json",)


@pytest.mark.parametrize(
    "definition", [None, [], "x", {}, {"properties": None}, {"properties": {"connectionReferences": []}}]
)
def test_odd_flow_definitions_need_nothing(definition: object) -> None:
    (it,) = solution(*flow(definition)).flows
    assert it.connection_references == it.connectors == it.environment_variables == ()


def test_other_workflows_are_no_cloud_flows() -> None:
    found = solution(*flow(DEFINITION, category=0))
    assert found.flows == ()
    assert keys(found) == [("workflow", A)]


VARIABLES = """<EnvironmentVariables><Definition IntroducedVersion="1.0"><SchemaName>cts_Old</SchemaName>
<IsRequired>1</IsRequired><Type>100000001</Type><DefaultValue xsi:nil="true"/>
<DisplayName><LocalizedNames><LocalizedName description="Old one"/></LocalizedNames></DisplayName>
<Description><LocalizedNames><LocalizedName description="About it"/></LocalizedNames></Description></Definition>
</EnvironmentVariables>"""


def test_environment_variables_in_both_forms() -> None:
    folder = "environmentvariabledefinitions/cts_New/"
    found = solution(
        VARIABLES,
        {
            "environment_variable_values.json": json.dumps(
                {"EnvironmentVariableValues": [
                    {"EnvironmentVariableDefinition.SchemaName": "cts_old", "EnvironmentVariableValueId": B, "Value": "7"}
                ]}
            ),
            folder + "environmentvariabledefinition.xml": '<environmentvariabledefinition schemaname="cts_New">'
            "<defaultvalue/><description default='d'/><displayname default='New one'/><isrequired>0</isrequired>"
            "<parameterkey>key</parameterkey><apiid>/api</apiid><secretstore>0</secretstore><type>100000004</type>"
            "<parentdefinitionid><schemaname>cts_old</schemaname></parentdefinitionid></environmentvariabledefinition>",
            folder + "environmentvariablevalues.json": json.dumps(
                {"environmentvariablevalues": {"environmentvariablevalue": {"@environmentvariablevalueid": A, "value": "v"}}}
            ),
        },
    )  # fmt: skip
    old, new = found.environment_variables
    assert (old.schema_name, old.display_name, old.description) == ("cts_Old", "Old one", "About it")
    assert (old.type, old.default, old.required) == (VariableType.NUMBER, None, True)
    assert (old.packaged_value, old.packaged_value_id) == ("7", B)
    assert (new.schema_name, new.display_name, new.description) == ("cts_New", "New one", "d")
    assert (new.type, new.default, new.required) == (VariableType.DATA_SOURCE, None, False)
    assert (new.packaged_value, new.packaged_value_id) == ("v", A)
    assert (new.parameter_key, new.api_id, new.secret_store, new.parent_definition) == (
        "key",
        "/api",
        0,
        "cts_old",
    )
    assert set(keys(found)) == {
        (kind, key)
        for kind in ("environmentvariabledefinition", "environmentvariablevalue")
        for key in ("cts_old", "cts_new")
    }
    assert edges(found) == {
        *(
            (f"environmentvariablevalue {key}", f"environmentvariabledefinition {key}")
            for key in ("cts_old", "cts_new")
        ),
        ("environmentvariabledefinition cts_new", "environmentvariabledefinition cts_old"),
    }
    assert settings_template(found) == {
        "EnvironmentVariables": [
            {"SchemaName": "cts_Old", "Value": ""},
            {"SchemaName": "cts_New", "Value": ""},
        ],
        "ConnectionReferences": [],
    }


@pytest.mark.parametrize(
    ("row", "value", "id_"),
    [
        ({"value": "v"}, "v", None),
        ({"@environmentvariablevalueid": A}, None, A),
        ({"value": 5}, "5", None),
        (None, None, None),
    ],
)
def test_a_packaged_value_may_lack_its_id_or_the_value(
    row: object, value: str | None, id_: str | None
) -> None:
    folder = "environmentvariabledefinitions/a/"
    found = solution(
        files={
            folder + "environmentvariabledefinition.xml": '<environmentvariabledefinition schemaname="a"/>',
            folder + "environmentvariablevalues.json": json.dumps(
                {"environmentvariablevalues": {"environmentvariablevalue": row}}
            ),
        }
    )
    (variable,) = found.environment_variables
    assert (variable.packaged_value, variable.packaged_value_id) == (value, id_)
    assert variable.type is VariableType.STRING


def test_a_changed_packaged_value_is_a_change() -> None:
    def with_value(value: str) -> Solution:
        old = {"values": [{"name": "cts_Old", "value": value}]}
        return solution(VARIABLES, {"environment_variable_values.json": json.dumps(old)})

    assert [c.kind for c in diff(with_value("1"), with_value("2")).changed] == ["environmentvariablevalue"]


@pytest.mark.parametrize("field", ["type", "secretstore"])
def test_odd_numbers_of_variables(field: str) -> None:
    text = f'<environmentvariabledefinition schemaname="cts_A"><{field}>x</{field}></environmentvariabledefinition>'
    with pytest.raises(PackageError, match="cts_A") as caught:
        solution(files={"environmentvariabledefinitions/cts_A/environmentvariabledefinition.xml": text})
    assert caught.value.rule == "customizations.variable"


def test_connection_references_and_custom_connectors() -> None:
    found = solution(
        f"""<Connectors><Connector><connectorid>{A}</connectorid><name>cts_Api</name><displayname>Api</displayname>
        <openapidefinition>/Connector/cts_Api_openapidefinition.json</openapidefinition></Connector></Connectors>
        <connectionreferences><connectionreference connectionreferencelogicalname="cts_Ref">
        <connectionreferencedisplayname>Ref</connectionreferencedisplayname><description>d</description>
        <connectorid>/providers/Microsoft.PowerApps/apis/shared_cts-5fapi</connectorid>
        <customconnectorid><connectorid>{A.upper()}</connectorid></customconnectorid></connectionreference>
        <connectionreference connectionreferencelogicalname="cts_Bare"/></connectionreferences>""",
        {"Connector/cts_Api_openapidefinition.json": "{}"},
    )
    first, second = found.connection_references
    assert (first.logical_name, first.display_name, first.description) == ("cts_Ref", "Ref", "d")
    assert first.connector_id == "/providers/Microsoft.PowerApps/apis/shared_cts-5fapi"
    assert first.custom_connector
    assert (second.display_name, second.connector_id, second.custom_connector) == ("cts_Bare", "", False)
    assert edges(found) == {("connectionreference cts_ref", "connector cts_api")}
    assert next(c for c in found.components if c.kind == "connector").files


def test_apps() -> None:
    needs = {
        "cdsdependencies": [
            {"logicalname": "account", "componenttype": 1},
            {"logicalname": "cts_V", "componenttype": 380},
            {},
            7,
        ]
    }
    references = {"x": {"id": "/apis/shared_x", "xrmConnectionReferenceLogicalName": "cts_Ref"}, "y": {}}
    found = solution(
        f"""<AppModuleSiteMaps><AppModuleSiteMap><SiteMapUniqueName>cts_App</SiteMapUniqueName>
        <SiteMap><Area><Group><SubArea Entity="account"/><SubArea Url="x"/></Group></Area></SiteMap></AppModuleSiteMap></AppModuleSiteMaps>
        <AppModules><AppModule><UniqueName>cts_App</UniqueName><AppModuleComponents>
        <AppModuleComponent type="1" schemaName="Account"/><AppModuleComponent type="26" id="{{{A.upper()}}}"/></AppModuleComponents>
        <AppModuleRoleMaps><Role id="{{{B}}}"/></AppModuleRoleMaps>
        <appelements><appelement uniquename="cts_el"><canvasappid><name>cts_canvas</name></canvasappid></appelement></appelements>
        <appsettings><appsetting settingdefinitionid.uniquename="AppChannel"/></appsettings></AppModule></AppModules>
        <CanvasApps><CanvasApp><Name>cts_canvas</Name><CdsDependencies>{json.dumps(needs)}</CdsDependencies>
        <ConnectionReferences>{json.dumps(references)}</ConnectionReferences></CanvasApp>
        <CanvasApp><Name>cts_odd</Name><CdsDependencies>not json</CdsDependencies></CanvasApp></CanvasApps>"""
    )
    assert edges(found) == {
        ("sitemap cts_app", "entity account"),
        ("appmodule cts_app", "entity account"),
        ("appmodule cts_app", f"savedquery {A}"),
        ("appmodule cts_app", f"role {B}"),
        ("appelement cts_el", "appmodule cts_app"),
        ("appelement cts_el", "canvasapp cts_canvas"),
        ("appsetting cts_app.appchannel", "appmodule cts_app"),
        ("canvasapp cts_canvas", "entity account"),
        ("canvasapp cts_canvas", "environmentvariabledefinition cts_v"),
        ("canvasapp cts_canvas", "connectionreference cts_ref"),
    }


def test_plug_ins_keep_their_identity_over_versions() -> None:
    def assembly(version: str) -> Solution:
        return solution(
            f"""<SolutionPluginAssemblies><PluginAssembly FullName="Cts.Plugins, Version={version}, Culture=neutral"
            PluginAssemblyId="{A}"><FileName>/PluginAssemblies/Cts/Cts.dll</FileName>
            <PluginTypes><PluginType PluginTypeId="{B}" Name="Cts.Plugins.Do"/></PluginTypes></PluginAssembly></SolutionPluginAssemblies>
            <SdkMessageProcessingSteps><SdkMessageProcessingStep SdkMessageProcessingStepId="{{{A}}}" Name="S">
            <PluginTypeId>{B}</PluginTypeId></SdkMessageProcessingStep></SdkMessageProcessingSteps>""",
            {"PluginAssemblies/Cts/Cts.dll": version.encode()},
        )

    first = assembly("1.0.0.0")
    assert keys(first) == [
        ("pluginassembly", "cts.plugins"),
        ("plugintype", B),
        ("sdkmessageprocessingstep", A),
    ]
    assert edges(first) == {
        (f"plugintype {B}", "pluginassembly cts.plugins"),
        (f"sdkmessageprocessingstep {A}", f"plugintype {B}"),
    }
    change = diff(first, assembly("2.0.0.0"))
    assert [c.kind for c in change.changed] == ["pluginassembly"]
    assert not change.added
    assert not change.removed


def test_files_in_a_controls_folder_belong_to_the_control() -> None:
    found = solution(
        "<CustomControls><CustomControl><Name>cts_N.C</Name><FileName>/Controls/cts_N.C</FileName></CustomControl></CustomControls>",
        {
            "Controls/cts_N.C/ControlManifest.xml": "<m/>",
            "Controls/cts_N.C/css/a.css": "",
            "Controls/other/x": "",
        },
    )
    control, other = found.components
    assert control.files == ("Controls/cts_N.C/ControlManifest.xml", "Controls/cts_N.C/css/a.css")
    assert other.identity == ("packagefile", "controls/other/x")
