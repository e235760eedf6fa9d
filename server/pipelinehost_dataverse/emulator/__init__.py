"""Embedded environments: one SQLite file each, behaving like Dataverse for solutions, behind its Web API."""

from pipelinehost_dataverse.emulator.environment import EmbeddedEnvironment
from pipelinehost_dataverse.emulator.store import EnvironmentInUseError

__all__ = ["EmbeddedEnvironment", "EnvironmentInUseError"]
