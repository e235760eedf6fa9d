"""``$metadata``: what the emulator has, as a CSDL document (OData 4.0, XML)."""

from __future__ import annotations

from collections.abc import Iterable
from xml.sax.saxutils import quoteattr

from pipelinehost_dataverse.emulator.odata import EDM, Table
from pipelinehost_dataverse.emulator.tables import TABLES

_SPACE = "Microsoft.Dynamics.CRM"
_IMPORT = (
    "OverwriteUnmanagedCustomizations:Boolean PublishWorkflows:Boolean SkipProductUpdateDependencies:Boolean "
    "HoldingSolution:Boolean ImportJobId:Guid CustomizationFile:Binary"
)
_UPGRADE = _IMPORT.replace("HoldingSolution:Boolean ", "")
_CLONE = "ParentSolutionUniqueName:String DisplayName:String VersionNumber:String"
_EXPORT = "SolutionName:String Managed:Boolean"
_PARAMETERS = {
    "StageSolution": "CustomizationFile:Binary",
    "ImportSolution": _IMPORT,
    "ImportSolutionAsync": _IMPORT,
    "StageAndUpgrade": _UPGRADE,
    "StageAndUpgradeAsync": _UPGRADE,
    "UninstallSolutionAsync": "SolutionUniqueName:String",
    "ExportSolution": _EXPORT,
    "ExportSolutionAsync": _EXPORT,
    "DownloadSolutionExportData": "ExportJobId:Guid",
    "DeleteAndPromote": "UniqueName:String",
    "DeleteAndPromoteAsync": "UniqueName:String",
    "PublishXml": "ParameterXml:String",
    "CloneAsPatch": _CLONE,
    "CloneAsSolution": _CLONE,
    "emulator_CustomizeComponent": "SolutionComponentName:String ComponentId:Guid Name:String",
    "RemoveActiveCustomizations": "SolutionComponentName:String ComponentId:Guid",
    "RetrieveSolutionImportResult": "ImportJobId:Guid",
    "RetrieveDependenciesForDelete": "ObjectId:Guid ComponentType:Int32",
    "RetrieveDependenciesForUninstall": "SolutionUniqueName:String",
    "RetrieveMissingDependencies": "SolutionUniqueName:String",
}
"""What actions and functions take; complex parameters are left out, as an open type would say no more."""


def document(functions: Iterable[str], actions: Iterable[str]) -> str:
    """The CSDL document of all tables and of these functions and actions."""
    functions, actions = list(functions), list(actions)
    parts = [_entity(table) for table in TABLES.values()]
    parts += [f'<ComplexType Name="{name}Response" OpenType="true"/>' for name in (*functions, *actions)]
    parts.append('<ComplexType Name="Label" OpenType="true"/>')
    parts += [_operation("Function", name) for name in functions]
    parts += [_operation("Action", name) for name in actions]
    contained = [_set(table) for table in TABLES.values()]
    contained += [f'<FunctionImport Name="{n}" Function="{_SPACE}.{n}"/>' for n in functions]
    contained += [f'<ActionImport Name="{n}" Action="{_SPACE}.{n}"/>' for n in actions]
    return (
        '<?xml version="1.0" encoding="utf-8"?>'
        '<edmx:Edmx Version="4.0" xmlns:edmx="http://docs.oasis-open.org/odata/ns/edmx"><edmx:DataServices>'
        f'<Schema Namespace="{_SPACE}" Alias="mscrm" xmlns="http://docs.oasis-open.org/odata/ns/edm">'
        f'{"".join(parts)}<EntityContainer Name="System">{"".join(contained)}</EntityContainer>'
        "</Schema></edmx:DataServices></edmx:Edmx>"
    )


def _entity(table: Table) -> str:
    columns = "".join(
        f"<Property Name={quoteattr(name)} Type={quoteattr('mscrm.Label' if kind == 'json' else EDM[kind])}"
        f"{' Nullable=' + chr(34) + 'false' + chr(34) if name == table.key else ''}/>"
        for name, kind in table.columns.items()
    )
    links = ""
    for name, (set_name, here, there, many) in table.links.items():
        kind = f"mscrm.{TABLES[set_name].logical_name}"
        if many:
            links += f'<NavigationProperty Name="{name}" Type="Collection({kind})"/>'
        else:
            links += (
                f'<NavigationProperty Name="{name}" Type="{kind}"><ReferentialConstraint '
                f'Property="{here}" ReferencedProperty="{there}"/></NavigationProperty>'
            )
    key = f'<Key><PropertyRef Name="{table.key}"/></Key>'
    return f'<EntityType Name="{table.logical_name}">{key}{columns}{links}</EntityType>'


def _set(table: Table) -> str:
    bindings = "".join(
        f'<NavigationPropertyBinding Path="{name}" Target="{link[0]}"/>' for name, link in table.links.items()
    )
    kind = f"{_SPACE}.{table.logical_name}"
    return f'<EntitySet Name="{table.set_name}" EntityType="{kind}">{bindings}</EntitySet>'


def _operation(kind: str, name: str) -> str:
    given = "".join(
        f'<Parameter Name="{parameter}" Type="Edm.{edm}"/>'
        for parameter, _, edm in (word.partition(":") for word in _PARAMETERS.get(name, "").split())
    )
    return f'<{kind} Name="{name}">{given}<ReturnType Type="mscrm.{name}Response"/></{kind}>'
