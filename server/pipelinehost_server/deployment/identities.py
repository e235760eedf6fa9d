"""As whom the host acts at an environment: by the environment's record, or by a stage of its own identity.

What holds is looked up when it is needed, never kept: after a restart, a wait or a change by an administrator
a run acts as what is configured then, or not at all.
"""

from __future__ import annotations

from collections.abc import Iterable

from pipelinehost import names
from pipelinehost.v1.resources_pb2 import Environment, Run, SignIn, Stage
from pipelinehost_dataverse.sign_in import SignInFailed
from pipelinehost_server import rules
from pipelinehost_server.store import Reads, Transaction

OWNER = "the environment's owner"
"""As whom the host acts where it does not sign in."""


def signs_in(environment: Environment) -> bool:
    """Whether the host signs in to an environment: to every one that is asked over https."""
    return environment.url.lower().startswith("https:")


def credential_key(name: str) -> str:
    """Where the credential of an environment or of a stage lies, encrypted."""
    return f"{name}/credential"


def forget_credentials(tx: Transaction, holders: Iterable[str]) -> str:
    """Deletes the credentials of environments or stages, and tells of those that there were."""
    gone = [name for name in holders if tx.secret(credential_key(name)) is not None]
    for name in gone:
        tx.delete_secret(credential_key(name))
    if not gone:
        return ""
    return f"the credential of {', '.join(gone)} was deleted: it was set for another address or identity"


def acting_stage(reads: Reads, run: Run) -> str:
    """The stage whose own identity a run acts with at its target; empty where it is the environment's.

    A stage that is gone, or leads elsewhere by now, still has the last word on a run that was asked for while
    it had an identity: such a run is not to act as somebody else.
    """
    stage = _stage(reads, run.stage)
    if stage is None or stage.environment != run.target_environment:
        stage = rules.stage_of(reads.run_pipeline(run.name), run.stage)
    return run.stage if stage is not None and stage.HasField("sign_in") else ""


def sign_in_of(reads: Reads, environment: str, stage: str = "") -> SignIn:
    """How the host signs in to an environment, for runs to a stage of its own identity or otherwise.

    Raises:
        SignInFailed: the stage has no identity for this environment any more.
    """
    if not stage:
        return (reads.environment(environment) or Environment()).sign_in
    found = _stage(reads, stage)
    if found is None or found.environment != environment or not found.HasField("sign_in"):
        raise SignInFailed(
            f"{stage} has no identity of its own for it any more",
            "Deploy anew: the pipeline was changed since this was asked for.",
        )
    return found.sign_in


def deployed_as(reads: Reads, run: Run) -> str:
    """As whom the host would act in a run's target now, in words; empty where nobody can."""
    environment = reads.environment(run.target_environment) or Environment()
    acting = Stage()
    if stage := acting_stage(reads, run):
        try:
            acting.sign_in.CopyFrom(sign_in_of(reads, environment.name, stage))
        except SignInFailed:
            return ""
    return acts_as(environment, acting)


def acts_as(environment: Environment, stage: Stage) -> str:
    """As whom the host acts in an environment for a stage that leads there, in words."""
    if stage.HasField("sign_in"):
        return words(stage.sign_in)
    return words(environment.sign_in) if signs_in(environment) else OWNER


def words(told: SignIn) -> str:
    """An identity, as people read it."""
    match told.method:
        case SignIn.METHOD_MANAGED_IDENTITY:
            return f"managed identity {told.client_id or 'of the machine of the host'}"
        case SignIn.METHOD_DEVELOPER:
            return "developer at the machine of the host"
        case _:
            return f"application {told.client_id} of {told.tenant}"


def _stage(reads: Reads, name: str) -> Stage | None:
    if not names.matches("stage", name):
        return None
    return rules.stage_of(reads.pipeline(names.pipeline(names.parse("stage", name)[0])), name)
