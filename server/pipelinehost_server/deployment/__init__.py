"""The deployments of a host: asked for, validated, advanced step by step, watched."""

from pipelinehost_server.deployment.environments import Environments
from pipelinehost_server.deployment.requests import Deployment
from pipelinehost_server.deployment.webhooks import Webhooks

__all__ = ["Deployment", "Environments", "Webhooks"]
