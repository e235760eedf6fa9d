"""How a component is named: type codes, kinds, and the spellings that a manifest uses for one key.

A kind is the name of the Dataverse table that holds such components, in lower case. Type codes are those of
the option set ``componenttype`` (Web API reference, solutioncomponent), plus 80 and 183, which the reference
leaves out and packages contain. Codes of 10000 and more differ from environment to environment; packages
name such components by their table instead.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final

from pipelinehost_dataverse.solution.model import RequiredComponent

KIND_BY_CODE: Final[Mapping[int, str]] = MappingProxyType(
    {
        1: "entity",
        2: "attribute",
        3: "entityrelationship",
        9: "optionset",
        10: "entityrelationship",
        14: "entitykey",
        16: "privilege",
        18: "index",
        20: "role",
        24: "systemform",
        25: "organization",
        26: "savedquery",
        29: "workflow",
        31: "report",
        36: "template",
        37: "contracttemplate",
        38: "kbarticletemplate",
        39: "mailmergetemplate",
        44: "duplicaterule",
        46: "entitymap",
        47: "attributemap",
        48: "ribboncommand",
        50: "ribboncustomization",
        59: "savedqueryvisualization",
        60: "systemform",
        61: "webresource",
        62: "sitemap",
        63: "connectionrole",
        65: "hierarchyrule",
        66: "customcontrol",
        68: "customcontroldefaultconfig",
        70: "fieldsecurityprofile",
        71: "fieldpermission",
        80: "appmodule",
        90: "plugintype",
        91: "pluginassembly",
        92: "sdkmessageprocessingstep",
        93: "sdkmessageprocessingstepimage",
        95: "serviceendpoint",
        150: "routingrule",
        151: "routingruleitem",
        152: "sla",
        153: "slaitem",
        154: "convertrule",
        155: "convertruleitem",
        161: "mobileofflineprofile",
        162: "mobileofflineprofileitem",
        165: "similarityrule",
        166: "datasourcemapping",
        183: "entitydatasource",
        201: "sdkmessage",
        202: "sdkmessagefilter",
        203: "sdkmessagepair",
        204: "sdkmessagerequest",
        205: "sdkmessagerequestfield",
        206: "sdkmessageresponse",
        207: "sdkmessageresponsefield",
        208: "importmap",
        210: "webwizard",
        300: "canvasapp",
        371: "connector",
        372: "connector",
        380: "environmentvariabledefinition",
        381: "environmentvariablevalue",
        400: "msdyn_aitemplate",
        401: "msdyn_aimodel",
        402: "msdyn_aiconfiguration",
        430: "entityanalyticsconfig",
        431: "attributeimageconfig",
        432: "entityimageconfig",
    }
)
"""Type code -> kind. Several codes share a kind where two numbers mean the same rows."""

CODE_BY_KIND: Final[Mapping[str, int]] = MappingProxyType(
    {kind: code for code, kind in reversed(list(KIND_BY_CODE.items()))}
    | {"entityrelationship": 10, "systemform": 60, "connector": 372}
)
"""Kind -> the type code that packages use for it; a kind without one is written by its table name."""

KEYED_BY_NAME: Final = frozenset(
    {
        "appmodule",
        "attribute",
        "canvasapp",
        "connector",
        "customcontrol",
        "entity",
        "entityrelationship",
        "environmentvariabledefinition",
        "optionset",
        "pluginassembly",
        "sitemap",
        "webresource",
    }
)
"""Kinds whose key is their schema name even where a manifest gives an id beside it."""

_SCOPED: Final = frozenset({"attribute", "entitykey"})
"""Kinds whose schema name is unique within its table only."""

_BRACED: Final = re.compile(r"\{([0-9a-f-]{36})\}")


def normalised(key: str) -> str:
    """A key as it is compared: lower case, no surrounding white space, GUIDs without braces."""
    key = key.strip().lower()
    if key[:1] == "{":
        braced = _BRACED.fullmatch(key)
        return braced[1] if braced else key
    return key


def normalised_in(kind: str, key: str) -> str:
    """As :func:`normalised`; a plug-in assembly's full name is cut down to the assembly's name.

    The full name contains the version, and an assembly of a later version is still the same component.
    """
    key = normalised(key)
    return key.partition(",")[0].rstrip() if kind == "pluginassembly" else key


def kind_of(type_: str) -> str:
    """The kind that a ``type`` attribute means: a number or a table name; ``type N`` for unknown numbers."""
    type_ = type_.strip()
    if type_.isascii() and type_.isdigit() and len(type_) < 10:
        return KIND_BY_CODE.get(int(type_), f"type {int(type_)}")
    return type_.lower()


def joined(keys: Iterable[tuple[str, str]]) -> str:
    """One key of the natural key's parts: those of a parent (``customapiid.uniquename``) come first."""
    ordered = sorted(keys, key=lambda pair: ("." not in pair[0], pair[0]))
    return ".".join(normalised(value) for _, value in ordered)


def reference(attributes: Mapping[str, str]) -> RequiredComponent:
    """The component that a Required, Dependent or AppModuleComponent element means.

    Args:
        attributes: The element's XML attributes, e.g. ``type``, ``schemaName``, ``id``, ``parentSchemaName``,
            ``id.connectionreferencelogicalname``.
    """
    written = attributes.get("type", "")
    kind = kind_of(written)
    schema_name = attributes.get("schemaName", "")
    id_ = attributes.get("id", "")
    parent = attributes.get("parentSchemaName", "")
    natural = [(name[3:], value) for name, value in attributes.items() if name.startswith("id.")]
    if kind in _SCOPED and parent and schema_name:
        key = f"{normalised(parent)}.{normalised(schema_name)}"
    elif natural:
        key = joined(natural)
        schema_name = schema_name or ".".join(value for _, value in natural)
    elif schema_name and (kind in KEYED_BY_NAME or not id_):
        key = normalised_in(kind, schema_name)
    elif id_:
        key = normalised(id_)
    elif kind == "sitemap":
        key = "default"  # the one site map of the environment has neither name nor id
    else:
        key = normalised(attributes.get("displayName", ""))
    return RequiredComponent(
        kind=kind,
        key=key,
        schema_name=schema_name,
        display_name=attributes.get("displayName", ""),
        parent_schema_name=parent,
        parent_display_name=attributes.get("parentDisplayName", ""),
        type=written,
        solution=attributes.get("solution", ""),
    )
