"""The deployments of a host: asked for, validated, advanced step by step, watched."""

from pipelinehost_server.deployment.environments import Environments
from pipelinehost_server.deployment.requests import Deployment

__all__ = ["Deployment", "Environments"]
