"""Solution packages: read one safely, compare two, write one.

solution = read(Path("CoreComponents_1_0_managed.zip"))
solution.manifest.version, len(solution.components)
"""

from pipelinehost_dataverse.solution.difference import Difference, diff
from pipelinehost_dataverse.solution.errors import RULES, PackageError
from pipelinehost_dataverse.solution.kinds import CODE_BY_KIND, KIND_BY_CODE, kind_of, normalised
from pipelinehost_dataverse.solution.model import (
    Component,
    ComponentKey,
    ConnectionReference,
    Dependency,
    EnvironmentVariable,
    Flow,
    Manifest,
    Publisher,
    RequiredComponent,
    RootComponent,
    Solution,
    VariableType,
    Version,
)
from pipelinehost_dataverse.solution.reader import read
from pipelinehost_dataverse.solution.requirements import settings_template
from pipelinehost_dataverse.solution.writer import (
    AppModule,
    CanvasApp,
    Column,
    OptionSet,
    Part,
    Role,
    Table,
    WebResource,
    cloud_flow,
    derived_id,
    missing,
    new_manifest,
    rewrite,
    write,
)

__all__ = [
    "CODE_BY_KIND",
    "KIND_BY_CODE",
    "RULES",
    "AppModule",
    "CanvasApp",
    "Column",
    "Component",
    "ComponentKey",
    "ConnectionReference",
    "Dependency",
    "Difference",
    "EnvironmentVariable",
    "Flow",
    "Manifest",
    "OptionSet",
    "PackageError",
    "Part",
    "Publisher",
    "RequiredComponent",
    "Role",
    "RootComponent",
    "Solution",
    "Table",
    "VariableType",
    "Version",
    "WebResource",
    "cloud_flow",
    "derived_id",
    "diff",
    "kind_of",
    "missing",
    "new_manifest",
    "normalised",
    "read",
    "rewrite",
    "settings_template",
    "write",
]
