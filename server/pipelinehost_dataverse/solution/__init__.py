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

__all__ = [
    "CODE_BY_KIND",
    "KIND_BY_CODE",
    "RULES",
    "Component",
    "ComponentKey",
    "ConnectionReference",
    "Dependency",
    "Difference",
    "EnvironmentVariable",
    "Flow",
    "Manifest",
    "PackageError",
    "Publisher",
    "RequiredComponent",
    "RootComponent",
    "Solution",
    "VariableType",
    "Version",
    "diff",
    "kind_of",
    "normalised",
    "read",
    "settings_template",
]
