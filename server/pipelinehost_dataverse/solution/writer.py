"""Packages that we make ourselves: for the demo, the tests, and export from an embedded environment.

    package = write(
        new_manifest("ContosoExpenses", "1.0.0.0", prefix="cts"),
        Table("cts_expense", (Column("cts_amount", "money"), Column("cts_account", lookup="account"))),
        ConnectionReference("cts_mail", connector_id="/providers/Microsoft.PowerApps/apis/shared_office365"),
        EnvironmentVariable("cts_Approver", required=True),
        cloud_flow("Approve", connection_references=["cts_mail"], environment_variables=["cts_Approver"]),
    )
    managed = rewrite(package, managed=True)

The same parts give the same bytes. Ids are derived from names, so that a later version of a solution has the
same components.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from lxml import etree

from pipelinehost_dataverse.solution.archive import pack
from pipelinehost_dataverse.solution.kinds import CODE_BY_KIND, KEYED_BY_NAME, normalised
from pipelinehost_dataverse.solution.manifest import parse_manifest
from pipelinehost_dataverse.solution.model import (
    ConnectionReference,
    Dependency,
    EnvironmentVariable,
    Flow,
    Manifest,
    Publisher,
    RequiredComponent,
    Version,
)
from pipelinehost_dataverse.solution.reader import open_archive

_NAMESPACE: Final = uuid.UUID("6f1d3c0e-4a52-5d0b-9f0e-9f6a3d5c2b17")
"""Ours, for ids that are derived from names."""

_GUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_INTRODUCED: Final = "1.0.0.0"
_CONTENT_TYPES: Final = "http://schemas.openxmlformats.org/package/2006/content-types"
_XSI: Final = "http://www.w3.org/2001/XMLSchema-instance"


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table."""

    name: str
    type: str = "nvarchar"
    """As customizations.xml writes it: nvarchar, ntext, int, decimal, money, bit, datetime, picklist, …"""
    display_name: str = ""
    lookup: str = ""
    """The table that it points to; its type is then lookup, and the relationship is written too."""
    options: str = ""
    """The global option set that it takes its values from; its type is then picklist."""


@dataclass(frozen=True, slots=True)
class Table:
    """A table with its columns, forms and views."""

    name: str
    columns: tuple[Column, ...] = ()
    display_name: str = ""
    forms: tuple[str, ...] = ()
    """Names of main forms."""
    views: tuple[str, ...] = ()
    """Names of public views."""


@dataclass(frozen=True, slots=True)
class OptionSet:
    """A global choice."""

    name: str
    options: tuple[str, ...] = ()
    """Labels; the values count from the publisher's prefix."""
    display_name: str = ""


@dataclass(frozen=True, slots=True)
class Role:
    """A security role."""

    name: str
    privileges: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class WebResource:
    """A file that apps load."""

    name: str
    content: bytes = b""
    type: int = 3
    """As Dataverse counts them: 1 page, 2 style sheet, 3 script, 4 XML, 5 PNG, 11 SVG."""
    display_name: str = ""


@dataclass(frozen=True, slots=True)
class CanvasApp:
    """A canvas app; its document is opaque."""

    name: str
    display_name: str = ""
    document: bytes = b"canvas app document"
    tables: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class AppModule:
    """A model-driven app with its site map."""

    name: str
    display_name: str = ""
    tables: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()
    """Names of roles; of the same solution, since ids are derived from names."""


Part = (
    Table
    | OptionSet
    | Role
    | WebResource
    | CanvasApp
    | AppModule
    | Flow
    | ConnectionReference
    | EnvironmentVariable
)
"""Whatever :func:`write` can put into a package."""


def new_manifest(
    unique_name: str,
    version: str,
    *,
    managed: bool = False,
    prefix: str = "cts",
    publisher: str = "contoso",
    display_name: str = "",
    description: str = "",
    missing_dependencies: Iterable[Dependency] = (),
    patch_of: tuple[str, str] | None = None,
) -> Manifest:
    """A manifest to be given to :func:`write`.

    Args:
        unique_name: Of the solution.
        version: One to four numbers joined by dots.
        managed: Whether the package is managed.
        prefix: The publisher's customization prefix.
        publisher: The publisher's unique name.
        display_name: The unique name where empty.
        description: Shown beside the name.
        missing_dependencies: See :func:`missing`.
        patch_of: Unique name and version of the solution that this one patches.

    Raises:
        ValueError: A version is none.
    """
    return Manifest(
        unique_name=unique_name,
        display_name=display_name or unique_name,
        description=description,
        version=Version.parse(version),
        managed=managed,
        publisher=Publisher(publisher, publisher.capitalize(), prefix, 10000),
        missing_dependencies=tuple(missing_dependencies),
        parent_solution=patch_of[0] if patch_of else None,
        parent_version=Version.parse(patch_of[1]) if patch_of else None,
        platform_version="9.2",
    )


def missing(
    required: tuple[str, str], dependent: tuple[str, str], *, solution: str = "Active", display_name: str = ""
) -> Dependency:
    """A MissingDependency: ``dependent``, in the package, needs ``required``, which is not.

    Args:
        required: Kind and key.
        dependent: Kind and key.
        solution: ``Name (version)`` of the solution that has it, or ``Active``.
        display_name: Of the required component; its key where empty.
    """
    return Dependency(
        dependent=_end(dependent, ""), required=_end(required, solution, display_name), declared=True
    )


def cloud_flow(
    name: str,
    *,
    connection_references: Sequence[str] = (),
    environment_variables: Sequence[str] = (),
    activated: bool = True,
) -> Flow:
    """A cloud flow whose id is derived from its name."""
    return Flow(
        id=derived_id("workflow", name),
        name=name,
        activated=activated,
        connection_references=tuple(connection_references),
        environment_variables=tuple(environment_variables),
    )


def derived_id(kind: str, name: str) -> str:
    """The GUID that :func:`write` gives to a component: the same for the same kind and name."""
    return str(uuid.uuid5(_NAMESPACE, f"{kind}:{name.lower()}"))


def write(manifest: Manifest, *parts: Part) -> bytes:
    """A package with these parts, in its order; the root components are those of the parts.

    Raises:
        TypeError: A part is of no type that can be written.
    """
    book = _Book(manifest)
    for part in parts:
        book.add(part)
    return pack(
        [
            ("customizations.xml", _serialised(book.customizations)),
            ("solution.xml", _serialised(_manifest_xml(manifest, book.roots))),
            *sorted(book.files.items()),
            ("[Content_Types].xml", _content_types(book.files)),
        ]
    )


def rewrite(package: bytes, *, managed: bool | None = None, version: str | None = None) -> bytes:
    """The same package with another mode or version; every other member stays as it is, byte by byte.

    Returns:
        ``package`` itself where nothing changes.

    Raises:
        PackageError: ``package`` cannot be read.
        ValueError: ``version`` is none.
    """
    archive = open_archive(package)
    before = parse_manifest(archive.xml("solution.xml"))
    changes = {}
    if managed is not None and managed != before.managed:
        changes["Managed"] = "1" if managed else "0"
    if version is not None and str(Version.parse(version)) != str(before.version):
        changes["Version"] = str(Version.parse(version))
    if not changes:
        return package
    # Parsed anew, so that comments and white space stay as they are.
    content = archive.read(archive.members["solution.xml"])
    root = etree.fromstring(
        content.removeprefix(b"\xef\xbb\xbf"), etree.XMLParser(resolve_entities=False, no_network=True)
    )
    for tag, text in changes.items():
        for element in root.iterfind(f"SolutionManifest/{tag}"):
            element.text = text
    return pack(
        (name, etree.tostring(root, encoding="utf-8") if name == "solution.xml" else (archive, member))
        for name, member in archive.members.items()
    )


class _Book:
    """customizations.xml, the files beside it, and the root components, while they grow."""

    def __init__(self, manifest: Manifest) -> None:
        self._manifest = manifest
        self.roots: list[dict[str, str]] = []
        self.files: dict[str, bytes] = {}
        self.customizations = etree.Element("ImportExportXml", nsmap={"xsi": _XSI})
        self._sections: dict[str, etree._Element] = {}
        for tag in _SECTIONS:
            self._section(tag)
        _child(self._section("Languages"), "Language", str(manifest.language_code))

    def _section(self, tag: str) -> etree._Element:
        section = self._sections.get(tag)
        if section is None:
            section = self._sections[tag] = etree.Element(tag)
            languages = self._sections.get("Languages")
            if languages is not None and tag != "Languages":
                languages.addprevious(section)
            else:
                self.customizations.append(section)
        return section

    def _root(self, kind: str, *, name: str = "", id_: str = "") -> None:
        line = {"type": str(CODE_BY_KIND[kind])}
        if name:
            line["schemaName"] = name
        if id_:
            line["id"] = f"{{{id_}}}"
        self.roots.append(line | {"behavior": "0"})

    def add(self, part: Part) -> None:
        writing: Mapping[type, Callable[..., None]] = {
            Table: self._table,
            OptionSet: self._option_set,
            Role: self._role,
            WebResource: self._web_resource,
            CanvasApp: self._canvas_app,
            AppModule: self._app_module,
            Flow: self._flow,
            ConnectionReference: self._connection_reference,
            EnvironmentVariable: self._variable,
        }
        if type(part) not in writing:
            raise TypeError(f"{type(part).__name__} is nothing that a package can contain")
        writing[type(part)](part)

    def _table(self, part: Table) -> None:
        shown = part.display_name or part.name
        entity = _child(self._section("Entities"), "Entity")
        _child(entity, "Name", part.name, LocalizedName=shown, OriginalName=shown)
        info = _child(_child(entity, "EntityInfo"), "entity", Name=part.name)
        _labels(info, "LocalizedNames", "LocalizedName", shown)
        columns = _child(info, "attributes")
        for column in part.columns:
            self._column(columns, part.name, column)
        _child(info, "EntitySetName", part.name.lower() + "s")
        _child(info, "IntroducedVersion", _INTRODUCED)
        if part.forms:
            forms = _child(_child(entity, "FormXml"), "forms", type="main")
            for name in part.forms:
                form = _child(forms, "systemform")
                _child(form, "formid", f"{{{derived_id('systemform', f'{part.name}.{name}')}}}")
                _child(form, "IntroducedVersion", _INTRODUCED)
                _child(_child(form, "form"), "tabs")
                _labels(form, "LocalizedNames", "LocalizedName", name)
        if part.views:
            views = _child(_child(entity, "SavedQueries"), "savedqueries")
            for name in part.views:
                view = _child(views, "savedquery")
                _child(view, "savedqueryid", f"{{{derived_id('savedquery', f'{part.name}.{name}')}}}")
                fetch = _child(_child(view, "fetchxml"), "fetch", version="1.0")
                _child(fetch, "entity", name=part.name)
                _child(view, "IntroducedVersion", _INTRODUCED)
                _labels(view, "LocalizedNames", "LocalizedName", name)
        self._root("entity", name=part.name)

    def _column(self, columns: etree._Element, table: str, part: Column) -> None:
        kind = "lookup" if part.lookup else "picklist" if part.options else part.type
        column = _child(columns, "attribute", PhysicalName=part.name)
        _child(column, "Type", kind)
        _child(column, "Name", part.name.lower())
        _child(column, "LogicalName", part.name.lower())
        _child(column, "IsCustomField", "1")
        _child(column, "IntroducedVersion", _INTRODUCED)
        if part.options:
            _child(column, "OptionSetName", part.options)
        _labels(column, "displaynames", "displayname", part.display_name or part.name)
        if part.lookup:
            name = f"{part.lookup}_{table}_{part.name}".lower()
            relationship = _child(self._section("EntityRelationships"), "EntityRelationship", Name=name)
            _child(relationship, "EntityRelationshipType", "OneToMany")
            _child(relationship, "IntroducedVersion", _INTRODUCED)
            _child(relationship, "ReferencingEntityName", table)
            _child(relationship, "ReferencedEntityName", part.lookup)
            _child(relationship, "ReferencingAttributeName", part.name)

    def _option_set(self, part: OptionSet) -> None:
        shown = part.display_name or part.name
        choice = _child(self._section("optionsets"), "optionset", Name=part.name, localizedName=shown)
        _child(choice, "OptionSetType", "picklist")
        _child(choice, "IsGlobal", "1")
        _child(choice, "IntroducedVersion", _INTRODUCED)
        _labels(choice, "displaynames", "displayname", shown)
        options = _child(choice, "options")
        first = self._manifest.publisher.option_value_prefix * 10_000
        for value, label in enumerate(part.options, first):
            _labels(_child(options, "option", value=str(value)), "labels", "label", label)
        self._root("optionset", name=part.name)

    def _role(self, part: Role) -> None:
        id_ = derived_id("role", part.name)
        role = _child(self._section("Roles"), "Role", id=f"{{{id_}}}", name=part.name)
        privileges = _child(role, "RolePrivileges")
        for name in part.privileges:
            _child(privileges, "RolePrivilege", name=name, level="Global")
        self._root("role", id_=id_)

    def _web_resource(self, part: WebResource) -> None:
        id_ = derived_id("webresource", part.name)
        path = f"WebResources/{part.name}{id_.upper()}"
        resource = _child(self._section("WebResources"), "WebResource")
        _child(resource, "WebResourceId", f"{{{id_}}}")
        _child(resource, "Name", part.name)
        _child(resource, "DisplayName", part.display_name or part.name)
        _child(resource, "WebResourceType", str(part.type))
        _child(resource, "IntroducedVersion", _INTRODUCED)
        _child(resource, "FileName", f"/{path}")
        self.files[path] = part.content
        self._root("webresource", name=part.name)

    def _canvas_app(self, part: CanvasApp) -> None:
        path = f"CanvasApps/{part.name}_DocumentUri.msapp"
        needs = [{"logicalname": table, "componenttype": 1} for table in part.tables]
        app = _child(self._section("CanvasApps"), "CanvasApp")
        _child(app, "Name", part.name)
        _child(app, "DisplayName", part.display_name or part.name)
        _child(app, "ConnectionReferences", "{}")
        _child(app, "CanvasAppType", "0")
        _child(app, "IntroducedVersion", _INTRODUCED)
        _child(app, "CdsDependencies", json.dumps({"cdsdependencies": needs}))
        _child(app, "DocumentUri", f"/{path}")
        self.files[path] = part.document
        self._root("canvasapp", name=part.name)

    def _app_module(self, part: AppModule) -> None:
        shown = part.display_name or part.name
        site_map = _child(self._section("AppModuleSiteMaps"), "AppModuleSiteMap")
        _child(site_map, "SiteMapUniqueName", part.name)
        group = _child(
            _child(_child(site_map, "SiteMap", IntroducedVersion=_INTRODUCED), "Area", Id="area"),
            "Group",
            Id="group",
        )
        for table in part.tables:
            _child(group, "SubArea", Id=table, Entity=table)
        _labels(site_map, "LocalizedNames", "LocalizedName", shown)
        app = _child(self._section("AppModules"), "AppModule")
        _child(app, "UniqueName", part.name)
        _child(app, "IntroducedVersion", _INTRODUCED)
        _child(app, "statecode", "0")
        contents = _child(app, "AppModuleComponents")
        _child(contents, "AppModuleComponent", type="62", schemaName=part.name)
        for table in part.tables:
            _child(contents, "AppModuleComponent", type="1", schemaName=table)
        roles = _child(app, "AppModuleRoleMaps")
        for role in part.roles:
            _child(roles, "Role", id=f"{{{derived_id('role', role)}}}")
        _labels(app, "LocalizedNames", "LocalizedName", shown)
        self._root("sitemap", name=part.name)
        self._root("appmodule", name=part.name)

    def _flow(self, part: Flow) -> None:
        plain = "".join(letter for letter in part.name if letter.isascii() and letter.isalnum())
        path = f"Workflows/{plain}-{part.id.upper()}.json"
        flow = _child(self._section("Workflows"), "Workflow", WorkflowId=f"{{{part.id}}}", Name=part.name)
        for tag, text in (
            ("JsonFileName", f"/{path}"),
            ("Type", "1"),
            ("Category", "5"),
            ("StateCode", "1" if part.activated else "0"),
            ("StatusCode", "2" if part.activated else "1"),
            ("IntroducedVersion", _INTRODUCED),
            ("PrimaryEntity", "none"),
        ):
            _child(flow, tag, text)
        _labels(flow, "LocalizedNames", "LocalizedName", part.name)
        references: dict[str, object] = {
            name: {
                "runtimeSource": "embedded",
                "connection": {"connectionReferenceLogicalName": name},
                "api": {"name": "shared"},
            }
            for name in part.connection_references
        }
        references |= {name: {"connection": {}, "api": {"name": name}} for name in part.connectors}
        parameters = {
            f"{name} ({name})": {"type": "String", "metadata": {"schemaName": name}}
            for name in part.environment_variables
        }
        definition = {"triggers": {}, "actions": {}, "parameters": parameters}
        content = {"properties": {"connectionReferences": references, "definition": definition}}
        self.files[path] = json.dumps(content | {"schemaVersion": "1.0.0.0"}, indent=1).encode()
        self._root("workflow", id_=part.id)

    def _connection_reference(self, part: ConnectionReference) -> None:
        reference = _child(
            self._section("connectionreferences"),
            "connectionreference",
            connectionreferencelogicalname=part.logical_name,
        )
        _child(reference, "connectionreferencedisplayname", part.display_name or part.logical_name)
        _child(reference, "connectorid", part.connector_id)
        if part.custom_connector:
            named = part.connector_id.rpartition("/")[2]
            _child(_child(reference, "customconnectorid"), "connectorid", derived_id("connector", named))
        if part.description:
            _child(reference, "description", part.description)
        _child(reference, "iscustomizable", "1")
        _child(reference, "statecode", "0")
        _child(reference, "statuscode", "1")

    def _variable(self, part: EnvironmentVariable) -> None:
        folder = f"environmentvariabledefinitions/{part.schema_name}/"
        shown = part.display_name or part.schema_name
        definition = etree.Element("environmentvariabledefinition", schemaname=part.schema_name)
        language = str(self._manifest.language_code)
        if part.api_id:
            _child(definition, "apiid", part.api_id)
        if part.default is not None:
            _child(definition, "defaultvalue", part.default)
        if part.description:
            described = _child(definition, "description", default=part.description)
            _child(
                described,
                "label",
                description=part.description,
                languagecode=str(self._manifest.language_code),
            )
        named = _child(definition, "displayname", default=shown)
        _child(named, "label", description=shown, languagecode=language)
        _child(definition, "introducedversion", _INTRODUCED)
        _child(definition, "iscustomizable", "1")
        _child(definition, "isrequired", "1" if part.required else "0")
        if part.parameter_key:
            _child(definition, "parameterkey", part.parameter_key)
        if part.parent_definition:
            _child(_child(definition, "parentdefinitionid"), "schemaname", part.parent_definition)
        if part.secret_store is not None:
            _child(definition, "secretstore", str(part.secret_store))
        _child(definition, "type", str(int(part.type)))
        self.files[folder + "environmentvariabledefinition.xml"] = _serialised(definition)
        if part.packaged_value is not None or part.packaged_value_id is not None:
            row: dict[str, str] = {"iscustomizable": "1"}
            if part.packaged_value_id is not None:
                row["@environmentvariablevalueid"] = part.packaged_value_id
            if part.packaged_value is not None:
                row["value"] = part.packaged_value
            content = {"environmentvariablevalues": {"environmentvariablevalue": row}}
            self.files[folder + "environmentvariablevalues.json"] = json.dumps(content, indent=2).encode()
        self._root("environmentvariabledefinition", name=part.schema_name)


_SECTIONS: Final = (
    # What every export has, in its order.
    "Entities",
    "Roles",
    "Workflows",
    "FieldSecurityProfiles",
    "Templates",
    "EntityMaps",
    "EntityRelationships",
    "OrganizationSettings",
    "optionsets",
    "CustomControls",
    "EntityDataProviders",
    "Languages",
)


def _end(key: tuple[str, str], solution: str, display_name: str = "") -> RequiredComponent:
    kind, written = key
    parent, _, name = written.rpartition(".") if kind == "attribute" else ("", "", written)
    code = CODE_BY_KIND.get(kind)
    return RequiredComponent(
        kind=kind,
        key=normalised(written),
        schema_name="" if code is not None and kind not in KEYED_BY_NAME else name,
        display_name=display_name or name,
        parent_schema_name=parent,
        type=kind if code is None else str(code),
        solution=solution,
    )


def _end_attributes(end: RequiredComponent) -> dict[str, str]:
    """The XML attributes by which a manifest names a component; the reverse of ``kinds.reference``."""
    found = {"type": end.type or str(CODE_BY_KIND.get(end.kind, end.kind))}
    if end.kind in CODE_BY_KIND and end.kind in KEYED_BY_NAME:
        found["schemaName"] = end.schema_name or end.key.rpartition(".")[2]
    elif end.kind not in CODE_BY_KIND:
        key = "connectionreferencelogicalname" if end.kind == "connectionreference" else "schemaname"
        found[f"id.{key}"] = end.schema_name or end.key
    if end.display_name:
        found["displayName"] = end.display_name
    if end.kind == "attribute":
        found["parentSchemaName"] = end.parent_schema_name or end.key.partition(".")[0]
    if end.parent_display_name:
        found["parentDisplayName"] = end.parent_display_name
    if end.solution:
        found["solution"] = end.solution
    if end.kind in CODE_BY_KIND and end.kind not in KEYED_BY_NAME:
        if _GUID.fullmatch(end.key):
            found["id"] = f"{{{end.key}}}"
        else:
            found["schemaName"] = end.key
    return found


def _manifest_xml(manifest: Manifest, roots: Iterable[Mapping[str, str]]) -> etree._Element:
    root = etree.Element(
        "ImportExportXml",
        nsmap={"xsi": _XSI},
        version="9.2.0.0",
        SolutionPackageVersion=manifest.platform_version or "9.2",
        languagecode=str(manifest.language_code),
        generatedBy="PipelineHost",
    )
    language = manifest.language_code
    body = _child(root, "SolutionManifest")
    _child(body, "UniqueName", manifest.unique_name)
    _labels(body, "LocalizedNames", "LocalizedName", manifest.display_name, language)
    _labels(body, "Descriptions", "Description", manifest.description, language)
    _child(body, "Version", str(manifest.version))
    _child(body, "Managed", "1" if manifest.managed else "0")
    publisher = _child(body, "Publisher")
    _child(publisher, "UniqueName", manifest.publisher.unique_name)
    _labels(publisher, "LocalizedNames", "LocalizedName", manifest.publisher.display_name, language)
    _child(publisher, "Descriptions")
    _child(publisher, "CustomizationPrefix", manifest.publisher.prefix)
    _child(publisher, "CustomizationOptionValuePrefix", str(manifest.publisher.option_value_prefix))
    _child(publisher, "Addresses")
    lines = _child(body, "RootComponents")
    for line in roots:
        _child(lines, "RootComponent", **line)
    missing_ones = _child(body, "MissingDependencies")
    for number, dependency in enumerate(manifest.missing_dependencies):
        pair = _child(missing_ones, "MissingDependency")
        _child(pair, "Required", key=str(2 * number), **_end_attributes(dependency.required))
        _child(pair, "Dependent", key=str(2 * number + 1), **_end_attributes(dependency.dependent))
    if manifest.parent_solution is not None:
        parent = _child(body, "ParentSolution")
        _child(parent, "UniqueName", manifest.parent_solution)
        _child(parent, "Version", str(manifest.parent_version))
    return root


def _content_types(files: Iterable[str]) -> bytes:
    """``[Content_Types].xml`` (Open Packaging Conventions): a type for every file extension."""
    types = {"xml": "text/xml"}
    for name in sorted(files):
        extension = name.rpartition("/")[2].rpartition(".")[2]
        if "." in name.rpartition("/")[2]:
            types.setdefault(extension, "application/octet-stream")
    root = etree.Element("Types", xmlns=_CONTENT_TYPES)
    for extension, content_type in types.items():
        _child(root, "Default", Extension=extension, ContentType=content_type)
    return _serialised(root)


def _child(parent: etree._Element, tag: str, text: str | None = None, /, **attributes: str) -> etree._Element:
    child = etree.SubElement(parent, tag, attributes)
    child.text = text
    return child


def _labels(parent: etree._Element, group: str, tag: str, text: str, language: int = 1033) -> None:
    labels = _child(parent, group)
    if text:
        _child(labels, tag, description=text, languagecode=str(language))


def _serialised(root: etree._Element) -> bytes:
    return etree.tostring(root, encoding="utf-8", pretty_print=True)
