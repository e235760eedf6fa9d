"""The one catalogue of findings: what validation and imports can find, why, and what to do about it.

The texts are templates over the facts that the finder gives. ``docs/findings.md`` is printed from here.
"""

from __future__ import annotations

from dataclasses import dataclass

from pipelinehost.v1.resources_pb2 import Finding, Step, Subject
from pipelinehost_dataverse.solution import ComponentKey

_KINDS = {
    "entity": "table",
    "attribute": "column",
    "workflow": "flow or process",
    "appmodule": "model-driven app",
    "canvasapp": "canvas app",
    "environmentvariabledefinition": "environment variable",
    "environmentvariablevalue": "packaged value of the environment variable",
    "connectionreference": "connection reference",
    "systemform": "form",
    "savedquery": "view",
    "optionset": "choice",
    "webresource": "web resource",
    "entityrelationship": "relationship",
    "role": "security role",
    "bot": "copilot",
}
"""What people call the kinds of components."""
_ERROR, _WARNING, _INFO = Finding.SEVERITY_ERROR, Finding.SEVERITY_WARNING, Finding.SEVERITY_INFO


@dataclass(frozen=True, slots=True)
class Entry:
    """What is the same in all findings of one code."""

    severity: Finding.Severity
    cause: str
    remedy: str
    retryable: bool = False


CATALOGUE: dict[str, Entry] = {
    # The package and where it comes from.
    "PACKAGE_INVALID": Entry(_ERROR, "The package cannot be used: {message} (rule {rule}).", "{remedy}"),
    "ARTIFACT_DAMAGED": Entry(
        _ERROR,
        "The stored bytes of {name} no longer match their digest. Nothing was sent to the environment.",
        "Restore the file from a backup of the host's data folder, or deploy a new version.",
    ),
    "SOLUTION_NOT_FOUND": Entry(
        _ERROR,
        "{environment} holds no solution with the unique name {name}.",
        "Check the spelling (`pipelinehost environment solutions`), or restore the package there first.",
    ),
    "SOLUTION_MANAGED_IN_SOURCE": Entry(
        _ERROR,
        "{name} is installed as managed in {environment}; a managed solution cannot be exported.",
        "Deploy from the environment in which the solution is built, or upload its managed package.",
    ),
    "VERSION_CHANGED": Entry(
        _ERROR,
        "{environment} holds version {found} of {name}, not {wanted}.",
        "Ask for version {found}, or leave the version out.",
    ),
    "VERSION_REUSED": Entry(
        _WARNING,
        "Version {version} of {name} was stored before with other contents.",
        "Raise the version in the development environment with every change, so that a version "
        "means one thing.",
    ),
    "EXPORT_FAILED": Entry(
        _ERROR,
        "{environment} could not export {name}: {message}",
        "Open the solution in the development environment and mend what it complains about; then retry.",
        retryable=True,
    ),
    # Mode, version and publisher against the target.
    "MODE_MISMATCH": Entry(
        _ERROR,
        "{name} is installed as unmanaged in {environment}, but this package is managed.",
        "Delete the unmanaged solution in {environment}, or make {environment} a development environment.",
    ),
    "VERSION_NOT_HIGHER": Entry(
        _ERROR,
        "{environment} holds version {installed} of {name}; {version} is not higher.",
        "Raise the version in the development environment and deploy again; to go back to an "
        "older version on "
        "purpose, let the pipeline allow redeployment.",
    ),
    "REDEPLOYMENT": Entry(
        _WARNING,
        "{environment} holds version {installed} of {name} and gets {version}, which is not "
        "higher. It is imported "
        "as an update: what {installed} added stays.",
        "Nothing, if that is what you want.",
    ),
    "REDEPLOYMENT_DOUBTED": Entry(
        _WARNING,
        "{environment} says of the package: {message}{remark}. It may refuse it, and then stays as it is.",
        "Try it; if it is refused, build what you want to go back to as a higher version.",
    ),
    "PUBLISHER_MISMATCH": Entry(
        _ERROR,
        "{name} is installed from the publisher {installed}; this package has the publisher {publisher}.",
        "Build the package with the publisher {installed}: the publisher of an installed managed solution "
        "cannot change.",
    ),
    "PATCH_PARENT_MISSING": Entry(
        _ERROR,
        "{name} is a patch of {parent} {version}, which {environment} does not hold.",
        "Deploy {parent} {version} first.",
    ),
    # What is under way in the target.
    "PENDING_UPGRADE": Entry(
        _ERROR,
        "An earlier upgrade of {name} in {environment} was not finished: it left the solution "
        "{name}_Upgrade.",
        "Apply or delete {name}_Upgrade in {environment}, then retry.",
        retryable=True,
    ),
    "OPERATION_RUNNING": Entry(
        _WARNING,
        "{environment} is busy with {operation}, which was started elsewhere.",
        "Nothing: the import waits until it has ended.",
        retryable=True,
    ),
    # Dependencies.
    "MISSING_DEPENDENCY": Entry(
        _ERROR,
        "{environment} lacks {required}, which {dependents} of this solution {verb}{origin}.",
        "{remedy}",
    ),
    "ENVIRONMENT_OBJECTS": Entry(
        _ERROR, "{environment} would refuse the package: {message}{remark}", "Mend that, then validate again."
    ),
    "ENVIRONMENT_REMARKS": Entry(
        _WARNING,
        "{environment} remarks about the package: {message}{remark}",
        "Read it; it does not stop the import.",
    ),
    # Connection references.
    "CONNECTION_MISSING": Entry(
        _ERROR,
        "The connection reference {name} ({connector}) has no connection in {environment}.",
        "Give one with --connection {name}=ID or in the settings file{candidates}; an "
        "administrator can also set "
        "it at the stage.",
    ),
    "CONNECTION_NOT_FOUND": Entry(
        _ERROR,
        "{environment} has no connection {connection}, which {source} gives for {name}.",
        "Use the id of an existing connection{candidates}, or create it in {environment} first.",
    ),
    "CONNECTOR_MISMATCH": Entry(
        _ERROR,
        "The connection {connection} is of the connector {found}, but {name} needs {connector}.",
        "Use a connection of {connector}{candidates}.",
    ),
    "CONNECTION_BROKEN": Entry(
        _WARNING,
        "The connection {connection} for {name} reports the status {status}.",
        "Sign the connection in again in {environment}; flows that use it will not run.",
    ),
    "CONNECTION_UNCHECKED": Entry(
        _WARNING,
        "The connection {connection} for {name} is taken as given: {environment} has no address that lists "
        "connections.",
        "Set the environment's connectivity address, or check the connection yourself.",
    ),
    # Environment variables.
    "VARIABLE_MISSING": Entry(
        _ERROR,
        "The environment variable {name} is required and has no value: neither default, packaged, in "
        "{environment}, at the stage nor given with the run.",
        "Give one with --set {name}=VALUE or in the settings file; an administrator can also "
        "set it at the stage.",
    ),
    "VARIABLE_WITHOUT_VALUE": Entry(
        _INFO,
        "The environment variable {name} has no value and no default.",
        "Give one with --set {name}=VALUE, if the solution needs it.",
    ),
    "VARIABLE_TYPE": Entry(
        _ERROR,
        "The value of {name} ({source}) is no {type}: {problem}.",
        "Give {expected}.",
    ),
    "VARIABLE_PACKAGED": Entry(
        _WARNING,
        "The package carries a current value of {name}; it is used unless {environment}, the "
        "stage or the run "
        "has another.",
        "Remove the current value from the solution before you export it, unless every "
        "environment shall get it.",
    ),
    "SETTING_UNUSED": Entry(
        _ERROR,
        "{path}: the solution has no {what} {name}.",
        "Correct the name{similar}, or leave it out: nothing would use it.",
    ),
    # What an upgrade removes.
    "UPGRADE_REMOVES": Entry(
        _WARNING,
        "The upgrade removes the {kind} {name} from {environment}{loss}.",
        "Use an update (--update) to keep it, or keep it in the solution.",
    ),
    "UPGRADE_REMOVES_MORE": Entry(
        _INFO,
        "The upgrade also removes {count} other components: {kinds}.",
        "Nothing, if that is what you want; compare the versions otherwise.",
    ),
    "UPGRADE_BLOCKED": Entry(
        _ERROR,
        "The upgrade would remove the {kind} {name}, but {dependants} in {environment} needs it.",
        "Remove that dependency in {environment} or deploy a version of the dependant without "
        "it first; or use an "
        "update (--update), which removes nothing.",
    ),
    # What going back loses.
    "CHANGES_BACK": Entry(
        _WARNING,
        "The {kind} {name} in {environment} changes back to what it is in {version}: what was changed in it "
        "since is lost{fate}.",
        "Nothing, if that is what you want; else keep {installed}.",
    ),
    "CHANGES_BACK_MORE": Entry(
        _WARNING,
        "{count} other components change back as well: {kinds}.",
        "Nothing, if that is what you want; else keep {installed}.",
    ),
    "STAYS_BEHIND": Entry(
        _WARNING,
        "The {kind} {name} is not in {version}: nothing removes it from {environment}, so it stays{fate}.",
        "See that nobody relies on it: the next upgrade to a version without it removes it.",
    ),
    "STAYS_BEHIND_MORE": Entry(
        _WARNING,
        "{count} other components that are not in {version} stay as well: {kinds}.",
        "Nothing: the next upgrade to a version without them removes them.",
    ),
    "COMES_BACK": Entry(
        _INFO,
        "{environment} does not hold the {kind} {name} any more: it comes back{fate}.",
        "Nothing; rows and values that went with it have to be brought back from elsewhere.",
    ),
    "COMES_BACK_MORE": Entry(
        _INFO,
        "{count} other components come back as well: {kinds}.",
        "Nothing.",
    ),
    "CANNOT_COMPARE": Entry(
        _WARNING,
        "What {environment} holds was not put there by the newest run of this host, or not all of it: "
        "{count} components are replaced by {version}, and nobody here knows what is lost in them ({kinds}).",
        "Look at them in {environment}, and at its solution history.",
    ),
    "CUSTOMIZATIONS_REMOVED": Entry(
        _WARNING,
        "What was changed by hand in {environment} in components of {name} is removed.",
        "Leave --overwrite-customizations out to keep it.",
    ),
    "LOSS_NOT_ACCEPTED": Entry(
        _ERROR,
        "Bringing {version} of {name} to {environment} {what}. Nothing was sent.",
        "Look at what would be lost now, and accept exactly that: `{redeploy}`.",
    ),
    # The import and afterwards.
    "IMPORT_FAILED": Entry(
        _ERROR,
        "{environment} refused the import: {message}{remark}",
        "Mend that, then retry the run.",
        retryable=True,
    ),
    "IMPORT_COMPONENT_FAILED": Entry(
        _ERROR, "{kind} {name}: {message}{remark}", "Mend the component, raise the version and deploy again."
    ),
    "IMPORT_COMPONENT_WARNING": Entry(
        _WARNING, "{kind} {name}: {message}{remark}", "Read it; it was imported."
    ),
    "IMPORT_UNDECIDED": Entry(
        _ERROR,
        "Whether {environment} has applied the import could not be decided. {evidence}",
        "Look at the solution history of {environment}, then say what you found: `pipelinehost run resolve`.",
    ),
    "SETTING_NOT_APPLIED": Entry(
        _WARNING,
        "{what} {name} does not hold in {environment} what was sent with the import.",
        "Set it there by hand, or deploy again; flows that need it may be off.",
    ),
    "VERIFY_FAILED": Entry(
        _ERROR,
        "After the import {environment} holds {found} of {name}, not {version}.",
        "Look at the solution history of {environment}; somebody may have changed it at the same time.",
        retryable=True,
    ),
    # The environment as a whole, and the host.
    "ENVIRONMENT_UNREACHABLE": Entry(
        _ERROR,
        "{environment} could not be reached: {message}",
        "Check its address and its state, then retry the run.",
        retryable=True,
    ),
    "ENVIRONMENT_DENIED": Entry(
        _ERROR,
        "{environment} refuses the host's identity: {message}",
        "Give the host's application user the rights to import there, then retry the run.",
        retryable=True,
    ),
    "SIGN_IN_FAILED": Entry(
        _ERROR,
        "The host could not sign in to {environment}: {message}",
        "{remedy}",
        retryable=True,
    ),
    "PRIVILEGE_MISSING": Entry(
        _ERROR,
        "{environment} lets the host in, but not {what}: its user there lacks the privilege {privilege}.",
        "Give the host's application user in {environment} the security role System Administrator, or "
        "another one with that privilege.",
        retryable=True,
    ),
    "ENVIRONMENT_RESET": Entry(
        _ERROR,
        "{environment} is not the environment that it was: its organization was {recorded} and is {found}. "
        "It was reset, restored or replaced.",
        "If that was meant: take {environment} out of its pipelines, delete its record (`pipelinehost "
        "environment delete {name}`) and create it anew. If not: correct its address.",
    ),
    "ENVIRONMENT_TWICE": Entry(
        _ERROR,
        "{environment} is the same environment as that of another record, at another address: their "
        "organization is {organization}.",
        "Find the other one by that id (`pipelinehost environment list -o json`), use it in the pipelines, "
        "and delete this record: `pipelinehost environment delete {name}`.",
    ),
    "ENVIRONMENT_TAKEN": Entry(
        _ERROR,
        "{environment} belongs to {owner}. An environment belongs to one host at a time.",
        "Deploy there from that host, or let its administrators delete the record there, which lets "
        "the environment go; or take it over: `pipelinehost environment take-over {name} --reason TEXT`.",
        retryable=True,
    ),
    "ENVIRONMENT_BUSY": Entry(
        _ERROR,
        "{environment} stayed busy for too long: {message}",
        "Wait until the operation there has ended, then retry the run.",
        retryable=True,
    ),
    "ENVIRONMENT_ERROR": Entry(
        _ERROR,
        "{environment} answered with an error: {message}{remark}",
        "Retry the run later.",
        retryable=True,
    ),
    "REQUESTER_NOT_ALLOWED": Entry(
        _ERROR,
        "{requester} may not deploy this any more.",
        "Ask the owner of the pipeline to share it with the requester again and retry the run; or let "
        "somebody deploy anew who may.",
        retryable=False,
    ),
    "ARTIFACT_BLOCKED": Entry(
        _ERROR,
        "{name} {version} was blocked by {principal}: {reason}",
        "Deploy another version; or let an administrator unblock it (`pipelinehost artifact unblock`) and "
        "retry.",
    ),
    "STAGE_HELD": Entry(
        _ERROR,
        "{stage} is held on version {held} of {name}, and this is {version}: {reason}",
        "Deploy version {held}; or let who may change the pipeline release it "
        "(`pipelinehost pipeline release`) and retry.",
    ),
    "HOST_DEFECT": Entry(
        _ERROR,
        "The host met a defect of its own (incident {incident}).",
        "Retry the run; if it happens again, look for the incident in the host's log and report it.",
        retryable=True,
    ),
}
"""Code to entry, in the order of validation. The codes of ``ErrorReason`` appear beside these when a
deployment is validated that the host's own record forbids."""


def finding(
    code: str,
    subject: Subject | None = None,
    *,
    step: Step.Kind = Step.KIND_VALIDATE,
    **facts: object,
) -> Finding:
    """A finding of the catalogue, with its facts put into the texts.

    Raises:
        KeyError: no such code, or a fact that a text needs is missing.
    """
    entry = CATALOGUE[code]
    return Finding(
        code=code,
        severity=entry.severity,
        subject=subject,
        cause=entry.cause.format_map(facts),
        remedy=entry.remedy.format_map(facts),
        retryable=entry.retryable,
        step=step,
    )


def subject(kind: str, name: str, display_name: str = "") -> Subject:
    """What a finding is about."""
    return Subject(kind=kind, name=name, display_name=display_name)


def kind_word(kind: str) -> str:
    """What people call a kind of component; its table name where they have no word for it."""
    return _KINDS.get(kind, kind)


def component_subject(key: ComponentKey | None, name: str, display_name: str) -> Subject:
    """A component as a subject. A column is named with its table: two tables may have columns of one name."""
    kind = key.kind if key else ""
    return subject(kind, key.key if key and kind == "attribute" else name, display_name)


def component_title(key: ComponentKey | None, name: str, display_name: str) -> str:
    """What people call a component; a column together with its table."""
    shown = display_name or name
    return f"{shown} of {key.key.partition('.')[0]}" if key and key.kind == "attribute" else shown
