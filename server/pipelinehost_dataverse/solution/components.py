"""The components that a package's files define.

``customizations.xml`` is read by a table: section and element -> kind and natural key, with the subcomponents
below. Folders ``{plural}/{key}/{singular}.xml`` hold one component each. What no table knows still becomes a
component, so that nothing in a package is ever dropped: an unknown section by the best key that its elements
have, a file that belongs to nothing as kind ``packagefile``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from lxml import etree

from pipelinehost_dataverse.solution.archive import Archive, pairs
from pipelinehost_dataverse.solution.errors import PackageError
from pipelinehost_dataverse.solution.kinds import joined, normalised, normalised_in
from pipelinehost_dataverse.solution.model import Component, ComponentKey

MAX_COMPONENTS: Final = 20_000
"""Of one package, which then takes about a second. The largest real package at hand has 1,544."""

PACKAGE_FILE: Final = "packagefile"
"""The kind of a file that belongs to no component known to us."""


class _Path:
    """Where a value stands: ``@Name``, ``Name``, ``A/B``, ``A/B@name``, or ``A+B`` for both joined."""

    __slots__ = ("attribute", "parts", "tags")

    def __init__(self, text: str) -> None:
        self.parts = tuple(map(_Path, text.split("+"))) if "+" in text else ()
        path, _, attribute = text.partition("@")
        self.tags = tuple(filter(None, path.split("/")))
        self.attribute = attribute

    def of(self, element: etree._Element) -> str:
        if self.parts:
            values = [part.of(element) for part in self.parts]
            return ".".join(values) if all(values) else ""
        for tag in self.tags:
            child = next(element.iterchildren(tag), None)
            if child is None:
                return ""
            element = child
        found = element.get(self.attribute) if self.attribute else element.text
        return found.strip() if found else ""


@dataclass(frozen=True, slots=True)
class _Spec:
    """How components of one kind stand in the XML."""

    kind: str
    keys: tuple[_Path, ...]
    """Where the natural key may stand; the first that is there counts. Empty: the parent's key."""
    name: _Path
    facts: tuple[tuple[str, _Path], ...] = ()
    schema_name: _Path | None = None
    scoped: bool = False
    """Whether the key is prefixed by the parent's."""
    below: tuple[tuple[str, _Spec], ...] = ()
    """Subcomponents: path from the element, and how they stand there."""
    counts: Callable[[etree._Element], bool] | None = None
    """Whether the element is more than the empty frame that every export contains."""


def _spec(
    kind: str,
    *keys: str,
    name: str = "LocalizedNames/LocalizedName@description",
    facts: Mapping[str, str] | None = None,
    schema_name: str | None = None,
    scoped: bool = False,
    below: Mapping[str, _Spec] | None = None,
    counts: Callable[[etree._Element], bool] | None = None,
) -> _Spec:
    merged = {"introducedversion": "IntroducedVersion"} | dict(facts or {})
    return _Spec(
        kind=kind,
        keys=tuple(map(_Path, keys)),
        name=_Path(name),
        facts=tuple((fact, _Path(path)) for fact, path in merged.items()),
        schema_name=_Path(schema_name) if schema_name else None,
        scoped=scoped,
        below=tuple((below or {}).items()),
        counts=counts,
    )


def _ribbon_counts(ribbon: etree._Element) -> bool:
    """Every table carries an empty ribbon; it counts once it customizes something."""
    rules = ribbon.find("RuleDefinitions")
    frames = [ribbon.find("CustomActions"), ribbon.find("CommandDefinitions"), ribbon.find("LocLabels")]
    return any(len(frame) for frame in [*frames, *(() if rules is None else rules)] if frame is not None)


_DASHBOARD: Final = _spec("systemform", "FormId", facts={"formtype": "FormXml/forms@type"})
_RIBBON: Final = _spec("ribboncustomization", name="@Id", counts=_ribbon_counts)

SECTIONS: Final[Mapping[str, Mapping[str, _Spec]]] = {
    "Entities": {
        "Entity": _spec(
            "entity",
            "Name",
            name="Name@LocalizedName",
            facts={
                "introducedversion": "EntityInfo/entity/IntroducedVersion",
                "unmodified": "EntityInfo/entity@unmodified",
                "setname": "EntityInfo/entity/EntitySetName",
            },
            below={
                "EntityInfo/entity/attributes/attribute": _spec(
                    "attribute",
                    "LogicalName",
                    "Name",
                    "@PhysicalName",
                    name="displaynames/displayname@description",
                    facts={"type": "Type", "custom": "IsCustomField"},
                    schema_name="@PhysicalName",
                    scoped=True,
                ),
                "EntityInfo/entity/EntityKeys/EntityKey": _spec(
                    "entitykey",
                    "LogicalName",
                    "Name",
                    name="displaynames/displayname@description",
                    scoped=True,
                ),
                "FormXml/forms/systemform": _spec("systemform", "formid"),
                "SavedQueries/savedqueries/savedquery": _spec("savedquery", "savedqueryid"),
                "Visualizations/visualization": _spec("savedqueryvisualization", "savedqueryvisualizationid"),
                "RibbonDiffXml": _RIBBON,
                "CustomControlDefaultConfigs/CustomControlDefaultConfig": _spec(
                    "customcontroldefaultconfig", "CustomControlDefaultConfigId"
                ),
            },
        )
    },
    "Roles": {"Role": _spec("role", "@id", name="@name")},
    "Workflows": {
        "Workflow": _spec(
            "workflow",
            "@WorkflowId",
            name="@Name",
            facts={
                "category": "Category",
                "state": "StateCode",
                "status": "StatusCode",
                "type": "Type",
                "primaryentity": "PrimaryEntity",
                "uniquename": "UniqueName",
            },
        )
    },
    "FieldSecurityProfiles": {
        "FieldSecurityProfile": _spec("fieldsecurityprofile", "@fieldsecurityprofileid", name="@name")
    },
    "EntityMaps": {"EntityMap": _spec("entitymap", "EntitySource+EntityTarget")},
    "EntityRelationships": {
        "EntityRelationship": _spec(
            "entityrelationship",
            "@Name",
            name="@Name",
            facts={
                "type": "EntityRelationshipType",
                "referencing": "ReferencingEntityName",
                "referenced": "ReferencedEntityName",
            },
        )
    },
    "optionsets": {"optionset": _spec("optionset", "@Name", name="@localizedName")},
    "Dashboards": {"Dashboard": _DASHBOARD},
    "Dialogs": {"Dialog": _DASHBOARD},
    "InteractionCentricDashboards": {"InteractionCentricDashboard": _DASHBOARD},
    "WebResources": {
        "WebResource": _spec("webresource", "Name", name="DisplayName", facts={"type": "WebResourceType"})
    },
    "AppModules": {
        "AppModule": _spec(
            "appmodule",
            "UniqueName",
            facts={"state": "statecode"},
            below={
                "appelements/appelement": _spec("appelement", "@uniquename", name="name"),
                "appsettings/appsetting": _spec(
                    "appsetting",
                    "@settingdefinitionid.uniquename",
                    name="@settingdefinitionid.uniquename",
                    scoped=True,
                ),
            },
        )
    },
    "AppModuleSiteMaps": {
        "AppModuleSiteMap": _spec(
            "sitemap", "SiteMapUniqueName", facts={"introducedversion": "SiteMap@IntroducedVersion"}
        )
    },
    "CanvasApps": {
        "CanvasApp": _spec("canvasapp", "Name", name="DisplayName", facts={"type": "CanvasAppType"})
    },
    "CustomControls": {"CustomControl": _spec("customcontrol", "Name", name="Name")},
    "Connectors": {
        "Connector": _spec("connector", "name", name="displayname", facts={"connectorid": "connectorid"})
    },
    "connectionreferences": {
        "connectionreference": _spec(
            "connectionreference",
            "@connectionreferencelogicalname",
            name="connectionreferencedisplayname",
            facts={"connectorid": "connectorid"},
        )
    },
    "EnvironmentVariables": {
        # Name is what early platform versions wrote in place of SchemaName.
        "Definition": _spec(
            "environmentvariabledefinition",
            "SchemaName",
            "Name",
            name="DisplayName/LocalizedNames/LocalizedName@description",
            facts={"introducedversion": "@IntroducedVersion", "type": "Type"},
        )
    },
    "SolutionPluginAssemblies": {
        "PluginAssembly": _spec(
            "pluginassembly",
            "@FullName",
            name="@FullName",
            facts={"id": "@PluginAssemblyId"},
            below={"PluginTypes/PluginType": _spec("plugintype", "@PluginTypeId", "@Name", name="@Name")},
        )
    },
    "SdkMessageProcessingSteps": {
        "SdkMessageProcessingStep": _spec(
            "sdkmessageprocessingstep",
            "@SdkMessageProcessingStepId",
            name="@Name",
            below={
                "SdkMessageProcessingStepImages/SdkMessageProcessingStepImage": _spec(
                    "sdkmessageprocessingstepimage", "SdkMessageProcessingStepImageId", name="@Name"
                )
            },
        )
    },
    "AIModels": {
        "AIModel": _spec(
            "msdyn_aimodel",
            "msdyn_aimodelid",
            name="msdyn_name",
            below={
                "AIConfigurations/AIConfiguration": _spec(
                    "msdyn_aiconfiguration", "msdyn_aiconfigurationid", name="msdyn_name"
                )
            },
        )
    },
    "EntityImageConfigs": {"EntityImageConfig": _spec("entityimageconfig", "parententitylogicalname")},
    "AttributeImageConfigs": {
        "AttributeImageConfig": _spec("attributeimageconfig", "parententitylogicalname+attributelogicalname")
    },
}
"""Section of customizations.xml -> element -> how the component stands there."""

_CONTAINERS: Final = frozenset({"Templates"})
"""Sections whose children are sections themselves (EmailTemplates, KBArticleTemplates, …)."""

_KIND_BY_TAG: Final[Mapping[str, str]] = {
    "emailtemplate": "template",
    "endpoint": "serviceendpoint",
    "localizedtemplate": "template",
}
"""Elements of sections without a table entry whose tag is not the name of their Dataverse table."""

_NO_COMPONENTS: Final = frozenset({"Languages"})
"""Sections that only describe the others: the languages that labels are written in."""

_KEY_ATTRIBUTES: Final = ("uniquename", "schemaname", "name", "id")

_OWN_MEMBERS: Final = frozenset({"solution.xml", "customizations.xml", "[Content_Types].xml"})

_PLATFORM_FOLDERS: Final = frozenset(
    {
        "CanvasApps",
        "Connector",
        "Controls",
        "Formulas",
        "PluginAssemblies",
        "Reports",
        "WebResources",
        "Workflows",
    }
)
"""Folders whose files are named by customizations.xml; whatever is XML there is content."""

OLD_VALUES: Final = "environment_variable_values.json"
"""The pre-2021 file of environment variable values, beside ``solution.xml``."""


@dataclass(slots=True)
class Found:
    """A component while it is being put together, with the XML that defines it."""

    kind: str
    key: str
    name: str
    schema_name: str
    facts: dict[str, str]
    parent: Found | None = None
    element: etree._Element | None = None
    files: list[str] = field(default_factory=list)
    folder: str = ""
    links: list[tuple[str, str]] = field(default_factory=list)
    """Of a row of a many-to-many table: its two natural keys, by attribute name."""
    value: tuple[str | None, str | None] | None = None
    """Of an environment variable value: its id and the value."""

    @property
    def identity(self) -> ComponentKey:
        """The pair by which two packages mean the same component."""
        return ComponentKey(self.kind, self.key)


class Inventory:
    """Everything that a package's files define, before it is reduced to values.

    Args:
        archive: The package.

    Raises:
        PackageError: ``customizations.root``, ``package.components``, ``zip.crc`` and the other rules of
            reading a member.
    """

    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        self.found: list[Found] = []
        """Parents come before their children."""
        self._owners: dict[etree._Element, Found | None] = {}
        self._claimed: set[str] = set(_OWN_MEMBERS)
        self.root = archive.xml("customizations.xml")
        if self.root.tag != "ImportExportXml":
            raise PackageError(
                "customizations.root", "'customizations.xml' is not the content of a solution."
            )
        self._sections(self.root)
        self._attach_named_files()
        self._folders()
        self._rest()

    def owner_of(self, element: etree._Element | None) -> Found | None:
        """The component that an element of customizations.xml belongs to."""
        if element is None:
            return None
        if element in self._owners:
            return self._owners[element]
        climbed = []
        found = None
        for ancestor in element.iterancestors():
            if ancestor in self._owners:
                found = self._owners[ancestor]
                break
            climbed.append(ancestor)
        for ancestor in climbed:  # so that many rows deep down cost no more than few
            self._owners[ancestor] = found
        return found

    def components(self) -> tuple[Component, ...]:
        """The components with their digests. Takes the XML apart: call it last.

        A component's digest covers its XML, without indentation, comments and subcomponents, and the
        content of its files.
        """
        digests: dict[int, bytes] = {}
        self._owners.clear()
        for found in reversed(self.found):
            hashing = hashlib.sha256()
            # Let go one after the other: freeing a large document at once keeps all other threads waiting.
            element, found.element = found.element, None
            if element is not None:
                hashing.update(_serialised(element))
                container = element.getparent()
                if container is not None:
                    container.remove(element)
            if found.value is not None:
                hashing.update(repr(found.value).encode())
            else:
                own = 1 if found.folder else 0  # the XML file of a folder component is its element
                for name in sorted(found.files[own:]):
                    hashing.update(self._archive.digest(self._archive.members[name]))
            digests[id(found)] = hashing.digest()
        merged: dict[tuple[str, str], Component] = {}
        for found in self.found:
            identity = (found.kind, found.key)
            component = Component(
                kind=found.kind,
                key=found.key,
                name=found.name or found.schema_name,
                schema_name=found.schema_name,
                sha256=digests[id(found)],
                parent=found.parent.identity if found.parent else None,
                files=tuple(found.files),
                attributes=found.facts,
            )
            twin = merged.get(identity)
            merged[identity] = component if twin is None else _merge(twin, component)
        return tuple(merged.values())

    def _add(self, found: Found) -> Found:
        if len(self.found) >= MAX_COMPONENTS:
            raise PackageError(
                "package.components", f"The solution has more than {MAX_COMPONENTS} components."
            )
        self.found.append(found)
        if found.element is not None:
            self._owners[found.element] = found
        return found

    # customizations.xml

    def _sections(self, root: etree._Element) -> None:
        for section in root:
            tag = str(section.tag)
            if tag in _NO_COMPONENTS:
                continue
            if tag in _CONTAINERS:
                self._sections(section)
                continue
            if tag == "RibbonDiffXml":
                if _ribbon_counts(section):
                    self._component(section, _RIBBON, None, "application")
                continue
            if tag == "SiteMap" and len(section):
                self._add(Found("sitemap", "default", "", "default", {}, element=section))
                continue
            specs = SECTIONS.get(tag, {})
            for element in section:
                spec = specs.get(str(element.tag))
                if spec is None or not self._component(element, spec, None):
                    self._unknown(element)
            if not len(section) and section.text and section.text.strip():
                self._unknown(section)

    def _component(self, element: etree._Element, spec: _Spec, parent: Found | None, own: str = "") -> bool:
        """Add the component and those below it; False where it has no key."""
        if spec.counts is not None and not spec.counts(element):
            return True
        written = own
        for path in spec.keys:
            written = path.of(element)
            if written:
                break
        if not written:
            if parent is None:
                return False
            written = parent.schema_name
            key = parent.key
        else:
            key = normalised_in(spec.kind, written)
            if spec.scoped and parent is not None:
                key = f"{parent.key}.{key}"
        facts = {}
        for fact, path in spec.facts:
            value = path.of(element)
            if value:
                facts[fact] = value
        found = self._add(
            Found(
                kind=spec.kind,
                key=key,
                name=spec.name.of(element),
                schema_name=(spec.schema_name.of(element) if spec.schema_name else "") or written,
                facts=facts,
                parent=parent,
                element=element,
            )
        )
        for path_below, spec_below in spec.below:
            for child in _descend(element, path_below):
                self._component(child, spec_below, found)
        return True

    def _unknown(self, element: etree._Element) -> None:
        """A component of a section that no table knows, under the best key that it has."""
        kind = str(element.tag).lower()
        kind = _KIND_BY_TAG.get(kind, kind)
        values = {name.lower(): value for name, value in pairs(element) if value}
        children = {str(child.tag).lower(): (child.text or "").strip() for child in element if not len(child)}
        names = (f"{kind}id", *_KEY_ATTRIBUTES)
        written = next((values[name] for name in names if name in values), "")
        if not written and values:
            written = joined(values.items())
        if not written:
            written = next((children[name] for name in names if children.get(name)), "")
        if not written:
            written = hashlib.sha256(_serialised(element)).hexdigest()
        name = values.get("name") or children.get("name") or ""
        self._add(Found(kind, normalised(written), name, written, {}, element=element))

    def _attach_named_files(self) -> None:
        """Give the files that customizations.xml names (``/Workflows/x.json``) to their components."""
        folded = {"/" + name.lower(): name for name in self._archive.members}
        in_folder: dict[str, list[str]] = {}
        for name in self._archive.members:
            if name.startswith("Controls/") and name.count("/") > 1:
                in_folder.setdefault("/" + name[: name.index("/", 9)].lower(), []).append(name)
        for element in self._path_like():
            path = (element.text or "").strip().replace("\\", "/").lower()
            names = [folded[path]] if path in folded else in_folder.get(path, ())
            for name in names:
                found = self.owner_of(element)
                if found is not None and name not in self._claimed:
                    self._claimed.add(name)
                    found.files.append(name)

    def _path_like(self) -> Iterator[etree._Element]:
        """The elements whose text starts with a slash.

        Most of the XML is tables and relationships, which name no files but those of calculated columns.
        """
        for section in self.root:
            if section.tag == "Entities":
                yield from section.iter("FormulaDefinitionFileName", "FileName")
            elif section.tag != "EntityRelationships":
                yield from (e for e in section.iter() if e.text and e.text.lstrip()[:1] == "/")

    # Folders and loose files

    def _folders(self) -> None:
        folders: dict[str, Found] = {}
        for name in sorted(self._archive.members, key=lambda name: (name.count("/"), name)):
            parts = name.split("/")
            if parts[0] in _PLATFORM_FOLDERS or name in self._claimed or not name.endswith(".xml"):
                continue
            if len(parts) >= 3 and _is_singular(parts[-3], parts[-1][:-4]):
                element = self._archive.xml(name)
                folder = name[: -len(parts[-1])]
                parent = _enclosing(folder[:-1], folders)
                kind = str(element.tag).lower()
                natural = pairs(element)
                written = ".".join(value for _, value in natural) or parts[-2]
                key = joined(natural) or normalised(parts[-2])
                found = self._add(
                    Found(
                        kind=kind,
                        key=f"{parent.key}.{key}" if parent else key,
                        name=_folder_component_name(element),
                        schema_name=written,
                        facts={"introducedversion": version}
                        if (version := _text(element, "introducedversion"))
                        else {},
                        parent=parent,
                        element=element,
                        files=[name],
                        folder=folder,
                    )
                )
                self._claimed.add(name)
                folders[folder] = found
            elif parts[0] == "Assets" and name.endswith("set.xml"):
                self._links(name)
        for name in self._archive.members:
            if name in self._claimed:
                continue
            owner = _enclosing(name, folders)
            if owner is None:
                continue
            self._claimed.add(name)
            if owner.kind == "environmentvariabledefinition" and name.endswith(
                "/environmentvariablevalues.json"
            ):
                self._values(owner, name)
            else:
                owner.files.append(name)

    def _links(self, name: str) -> None:
        """Rows of a many-to-many table: ``<a_b a.key=… b.key=…>`` in ``Assets/a_bset.xml``."""
        root = self._archive.xml(name)
        for element in root:
            natural = pairs(element)
            key = joined(natural)
            if key:
                written = " ".join(value for _, value in natural)
                self._add(
                    Found(str(element.tag).lower(), key, "", written, {}, element=element, links=natural)
                )
        self._claimed.add(name)

    def _values(self, definition: Found, name: str) -> None:
        content = self._archive.json(name)
        rows: Any = content.get("environmentvariablevalues") if isinstance(content, dict) else None
        rows = rows.get("environmentvariablevalue") if isinstance(rows, dict) else None
        for row in rows if isinstance(rows, list) else [rows]:
            if not isinstance(row, dict):
                continue
            self._value(
                definition.schema_name,
                definition,
                _string(row.get("@environmentvariablevalueid")),
                _string(row.get("value")),
            )
            self.found[-1].files.append(name)

    def _value(self, schema_name: str, definition: Found | None, id_: str | None, value: str | None) -> None:
        self._add(
            Found(
                kind="environmentvariablevalue",
                key=normalised(schema_name),
                name=schema_name,
                schema_name=schema_name,
                facts={},
                parent=definition,
                value=(id_, value),
            )
        )

    def _rest(self) -> None:
        """The old file of variable values, and whatever belongs to nothing."""
        if OLD_VALUES in self._archive.members:
            definitions = {f.key: f for f in self.found if f.kind == "environmentvariabledefinition"}
            content = self._archive.json(OLD_VALUES)
            for schema_name, id_, value in _old_values(content):
                self._value(schema_name, definitions.get(normalised(schema_name)), id_, value)
                self._claimed.add(OLD_VALUES)
        for name in self._archive.members:
            if name not in self._claimed:
                self._add(Found(PACKAGE_FILE, normalised(name), name, name, {}, files=[name]))


def _merge(first: Component, second: Component) -> Component:
    """Two definitions of one component (a form for each client, say) count as one."""
    return Component(
        kind=first.kind,
        key=first.key,
        name=first.name,
        schema_name=first.schema_name,
        sha256=hashlib.sha256(first.sha256 + second.sha256).digest(),
        parent=first.parent,
        files=first.files + second.files,
        attributes=first.attributes,
    )


def _serialised(element: etree._Element) -> bytes:
    # Not C14N: its time grows with the square of an element's attributes.
    return etree.tostring(element, encoding="utf-8", with_tail=False)


def _descend(element: etree._Element, path: str) -> Iterator[etree._Element]:
    level: Iterable[etree._Element] = (element,)
    for tag in path.split("/"):
        level = [child for parent in level for child in parent.iterchildren(tag)]
    return iter(level)


def _is_singular(plural: str, singular: str) -> bool:
    """Whether ``customapiresponseproperty`` may stand for ``customapiresponseproperties`` and so on."""
    plural, singular = plural.lower(), singular.lower()
    return bool(singular) and plural.startswith(singular[:-1]) and 0 < len(plural) - len(singular) <= 2


def _enclosing(path: str, folders: Mapping[str, Found]) -> Found | None:
    while path:
        path = path.rpartition("/")[0]
        found = folders.get(path + "/")
        if found is not None:
            return found
    return None


def _text(element: etree._Element, tag: str) -> str:
    child = next(element.iterchildren(tag), None)
    return "" if child is None or not child.text else child.text.strip()


def _folder_component_name(element: etree._Element) -> str:
    shown = next(element.iterchildren("displayname"), None)
    if shown is not None:
        label = next(shown.iterchildren("label"), None)
        named = shown.get("default") or (label.get("description") if label is not None else "")
        if named:
            return named
    return _text(element, "name")


def _string(value: object) -> str | None:
    return value if isinstance(value, str) else None if value is None else str(value)


def _old_values(content: object) -> Iterator[tuple[str, str | None, str | None]]:
    """(schema name, id, value) out of either form of the pre-2021 file."""
    if not isinstance(content, dict):
        return
    for rows, name, id_, value in (
        (
            "EnvironmentVariableValues",
            "EnvironmentVariableDefinition.SchemaName",
            "EnvironmentVariableValueId",
            "Value",
        ),
        ("values", "name", "id", "value"),
    ):
        for row in content.get(rows) or () if isinstance(content.get(rows), list) else ():
            if isinstance(row, dict) and isinstance(row.get(name), str) and row[name]:
                yield row[name], _string(row.get(id_)), _string(row.get(value))
