"""Which component needs which: the edges that the files of a package show by themselves."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from lxml import etree

from pipelinehost_dataverse.solution.archive import pairs
from pipelinehost_dataverse.solution.components import Found, Inventory
from pipelinehost_dataverse.solution.errors import PackageError
from pipelinehost_dataverse.solution.kinds import kind_of, normalised, normalised_in, reference
from pipelinehost_dataverse.solution.model import Dependency, Flow, RequiredComponent

MAX_DEPENDENCIES: Final = 80_000
"""That the files of one package show. The largest real package at hand has 2,262."""

_NAMES_ROW: Final[Mapping[str, tuple[str, str]]] = {
    # Element of customizations.xml -> the attribute that names a component (or its text), and of which kind.
    "OptionSetName": ("", "optionset"),
    "SubArea": ("Entity", "entity"),
    "Library": ("name", "webresource"),
    "PluginTypeId": ("", "plugintype"),
    "PrimaryEntity": ("", "entity"),
    "Role": ("id", "role"),
    "EntitySource": ("", "entity"),
    "EntityTarget": ("", "entity"),
    "parententitylogicalname": ("", "entity"),
}

_KIND_OF_LOOKUP: Final[Mapping[str, str]] = {
    # What a lookup of a folder component points to, where its name without "id" is not the kind.
    "parentbotid": "bot",
    "parentbotcomponentid": "botcomponent",
    "parentbotcomponentcollectionid": "botcomponentcollection",
    "parentdefinitionid": "environmentvariabledefinition",
    "contextentity": "entity",
    "entity": "entity",
    "entityid": "entity",
}

_NATURAL_KEYS: Final = frozenset(
    {"schemaname", "uniquename", "logicalname", "name", "connectionreferencelogicalname"}
)


class _Edges:
    """The edges found so far, each once."""

    def __init__(self) -> None:
        self._ends: dict[tuple[str, str], RequiredComponent] = {}
        self._seen: dict[tuple[tuple[str, str], tuple[str, str]], Dependency] = {}

    def end(self, found: Found) -> RequiredComponent:
        identity = (found.kind, found.key)
        end = self._ends.get(identity)
        if end is None:
            end = RequiredComponent(found.kind, found.key, found.schema_name, found.name or found.schema_name)
            self._ends[identity] = end
        return end

    def known(self, required: RequiredComponent) -> RequiredComponent:
        """The end with the names of the package's own component, where it is one."""
        return self._ends.setdefault((required.kind, required.key), required)

    def add(self, dependent: Found | None, kind: str, written: str) -> None:
        key = normalised_in(kind, written)
        if dependent is None or not key or (kind == "entity" and key == "none"):
            return
        end = self._ends.get((kind, key))
        if end is None:
            end = self._ends[kind, key] = RequiredComponent(kind, key, written.strip(), written.strip())
        self.link(dependent, end)

    def link(self, dependent: Found, required: RequiredComponent) -> None:
        pair = ((dependent.kind, dependent.key), (required.kind, required.key))
        if pair[0] != pair[1] and pair not in self._seen:
            if len(self._seen) >= MAX_DEPENDENCIES:
                raise PackageError(
                    "package.dependencies", f"The solution has more than {MAX_DEPENDENCIES} dependencies."
                )
            self._seen[pair] = Dependency(self.end(dependent), required, declared=False)

    def __iter__(self) -> Iterator[Dependency]:
        return iter(self._seen.values())


def dependencies(
    inventory: Inventory, flows: Iterable[tuple[Found, Flow]], declared: Iterable[Dependency]
) -> tuple[Dependency, ...]:
    """The edges from the files, then the manifest's missing dependencies.

    An edge's required component need not be in the package: it may be a system table, or what a missing
    dependency names.

    Raises:
        PackageError: ``package.dependencies``, ``xml.nodes``.
    """
    edges = _Edges()
    for found in inventory.found:
        edges.end(found)  # so that edges to it show its own name
    columns = {found.key: found for found in inventory.found if found.kind == "attribute"}
    for found in inventory.found:
        if found.parent is not None:
            edges.link(found, edges.end(found.parent))
        if found.element is None:
            continue
        if found.kind == "entityrelationship":
            _relationship(edges, found, found.element, columns)
        elif found.kind == "appmodule":
            for part in found.element.iterfind("AppModuleComponents/AppModuleComponent"):
                edges.link(found, edges.known(reference(dict(pairs(part)))))
        elif found.kind == "canvasapp":
            _canvas_app(edges, found, found.element)
        elif found.kind == "appelement":
            for app in found.element.iterfind("canvasappid/name"):
                edges.add(found, "canvasapp", app.text or "")
        elif found.folder:
            _folder_component(edges, found, found.element)
        for name, value in found.links:
            _lookup(edges, found, name.partition(".")[0], value)
    for row in inventory.root.iter(*_NAMES_ROW):
        attribute, kind = _NAMES_ROW[str(row.tag)]
        named = row.get(attribute) if attribute else row.text
        if named:
            edges.add(inventory.owner_of(row), kind, named)
    _custom_connectors(edges, inventory)
    for found, flow in flows:
        for name in flow.connection_references:
            edges.add(found, "connectionreference", name)
        for name in flow.environment_variables:
            edges.add(found, "environmentvariabledefinition", name)
        for name in flow.connectors:
            edges.add(found, "connector", name)
    return (*edges, *declared)


def _relationship(edges: _Edges, found: Found, element: etree._Element, columns: Mapping[str, Found]) -> None:
    texts = {str(child.tag): (child.text or "").strip() for child in element.iterchildren()}
    for tag in ("ReferencingEntityName", "ReferencedEntityName", "FirstEntityName", "SecondEntityName"):
        edges.add(found, "entity", texts.get(tag, ""))
    referencing = normalised(texts.get("ReferencingEntityName", ""))
    column = columns.get(f"{referencing}.{normalised(texts.get('ReferencingAttributeName', ''))}")
    if column is not None:
        edges.link(found, edges.end(column))
        edges.add(column, "entity", texts.get("ReferencedEntityName", ""))


def _canvas_app(edges: _Edges, found: Found, element: etree._Element) -> None:
    """What a canvas app's embedded JSON tells; where it cannot be read there are no edges."""
    for entry in _json(element, "CdsDependencies", "cdsdependencies"):
        if isinstance(entry, dict) and isinstance(entry.get("logicalname"), str):
            edges.add(found, kind_of(str(entry.get("componenttype", ""))), entry["logicalname"])
    for entry in _json(element, "ConnectionReferences"):
        logical_name = entry.get("xrmConnectionReferenceLogicalName") if isinstance(entry, dict) else None
        if isinstance(logical_name, str):
            edges.add(found, "connectionreference", logical_name)


def _json(element: etree._Element, tag: str, inner: str = "") -> list[object]:
    text = element.findtext(tag)
    if not text:
        return []
    try:
        content: object = json.loads(text)
    except (ValueError, RecursionError):
        return []
    if inner:
        content = content.get(inner) if isinstance(content, dict) else None
    if isinstance(content, dict):
        return list(content.values())
    return content if isinstance(content, list) else []


def _folder_component(edges: _Edges, found: Found, element: etree._Element) -> None:
    """A lookup is an element that holds the other row's natural key: ``<parentbotid><schemaname>…``."""
    for child in element.iterchildren():
        for key in child.iterchildren():
            if key.tag in _NATURAL_KEYS and key.text:
                _lookup(edges, found, str(child.tag), key.text)
    for tag in ("connectionreferenceid", "workflowid"):
        for key in element.iterfind(f"{tag}/{tag}"):
            _lookup(edges, found, tag, key.text or "")


def _lookup(edges: _Edges, found: Found, tag: str, value: str) -> None:
    kind = _KIND_OF_LOOKUP.get(tag) or (tag[:-2] if tag.endswith("id") else "")
    if kind:
        edges.add(found, kind, value)


def _custom_connectors(edges: _Edges, inventory: Inventory) -> None:
    """A connection reference names a custom connector by id; the connector's key is its name."""
    names = {
        normalised(found.facts["connectorid"]): found.schema_name
        for found in inventory.found
        if found.kind == "connector" and "connectorid" in found.facts
    }
    for found in inventory.found:
        if found.kind != "connectionreference" or found.element is None:
            continue
        for named in found.element.iterfind("customconnectorid/connectorid"):
            name = names.get(normalised(named.text or ""))
            if name is not None:
                edges.add(found, "connector", name)
