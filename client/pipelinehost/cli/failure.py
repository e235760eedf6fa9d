"""What the CLI says when something fails: what happened, why, and what to type next; and its exit codes."""

from __future__ import annotations

import re

from rich.console import Console
from rich.text import Text

from pipelinehost import names
from pipelinehost.cli.console import clean, program
from pipelinehost.errors import PermissionDenied, PipelineHostError, Unauthenticated

OK = 0
ERROR = 1
USAGE = 2
RUN_FAILED = 3
NOT_ALLOWED = 4
NOT_FINISHED = 8
INTERRUPTED = 130
"""128 + SIGINT, as shells have it; a watch that is left ends with NOT_FINISHED instead."""

EXIT_CODES = """\b
Exit codes:
  0  done
  1  an error
  2  wrong usage
  3  the run failed, was rejected, expired or was cancelled; validation found errors
  4  not signed in, or not allowed
  8  the run is not finished yet, or its outcome is unknown
"""

_KINDS = {
    "pipelines": "pipeline",
    "environments": "environment",
    "runs": "run",
    "artifacts": "artifact",
    "freezes": "freeze",
    "principals": "principal",
    "tokens": "token",
}
"""Groups of commands, by the collections of resource names."""


def exit_code(error: PipelineHostError) -> int:
    """The exit code of a refused call."""
    return NOT_ALLOWED if isinstance(error, Unauthenticated | PermissionDenied) else ERROR


def explain(error: PipelineHostError, console: Console, command: str) -> None:
    """Says what was refused, every reason, and what to type next.

    Args:
        error: what the call raised.
        console: where to write.
        command: path of the command that failed, for its help.
    """
    _first(console, error.message)
    for violation in error.violations:
        told = clean(violation.description)
        if told and told.rstrip(".").casefold() not in clean(error.message).casefold():
            subject = clean(violation.subject)
            named = not subject or told.startswith(subject)
            console.print(f"  - {told if named else f'{subject}: {told}'}")
    if error.remedy:
        console.print(f"  {clean(error.remedy)}")
    console.print(f"  Next: {_next(error, command)}")


def explain_text(message: str, console: Console, following: str) -> None:
    """Says what is wrong with something on this side, and what to type next."""
    first, *rest = message.split("\n")
    _first(console, first)
    for line in rest:
        console.print(f"  {clean(line)}")
    console.print(f"  Next: {following}")


def _first(console: Console, message: str) -> None:
    console.print(Text("error: ", style="bold red") + Text(clean(message), style="default"))


def _next(error: PipelineHostError, command: str) -> str:
    call = program()
    resource = clean(error.metadata.get("resource", ""))
    run = re.search(r"\bruns/[0-9a-z]{26}\b", error.message)
    about = names.slug(resource or (run[0] if run else ""))
    # The path of a field may hold the word of another kind: a full name counts before it.
    named = re.search(rf"\b({'|'.join(_KINDS)})/[0-9a-z]", error.message)
    kind = _kind(resource or (named[0] if named else "")) or _kind_in(error.message)
    by_reason = {
        "TOKEN_MISSING": "give a token with --token-file FILE or PIPELINEHOST_TOKEN=…",
        "TOKEN_INVALID": "give another token with --token-file FILE or PIPELINEHOST_TOKEN=…",
        "PERMISSION_DENIED": f"{call} host (shows who you are to the host)",
        "HOST_UNAVAILABLE": "pipelinehost --host ADDRESS host, or pipelinehost-server serve --data FOLDER",
        "ENVIRONMENT_UNREACHABLE": "repeat the command when the environment can be reached",
        "SOLUTION_NOT_FOUND": f"{call} environment solutions {about or 'ENVIRONMENT'}",
        "STAGE_OUT_OF_ORDER": f"{call} pipeline show {_part(resource, 1) or 'PIPELINE'}",
        "STAGE_FROZEN": f"{call} freeze list",
        "STAGE_HELD": f"{call} pipeline show {_part(resource, 1) or 'PIPELINE'}",
        "ARTIFACT_BLOCKED": f"{call} artifact list",
        "NOTHING_DUE": f"{call} run list, or raise the solution's version in the development environment",
        "SOURCE_AMBIGUOUS": f"{command} … --from ENVIRONMENT",
        "ETAG_MISMATCH": "repeat the command",
        "RESOURCE_IN_USE": f"{call} run list",
        "RESOURCE_EXISTS": f"{call} freeze show {about or 'FREEZE'}"
        if kind == "freeze"
        else f"{call} {kind} list",
        "RUN_NOT_CANCELLABLE": f"{call} run show {about or 'RUN'}",
        "RUN_NOT_RETRYABLE": f"{call} run show {about or 'RUN'}",
        "RUN_NOT_UNKNOWN": f"{call} run show {about or 'RUN'}",
        "RESUME_TOKEN_INVALID": f"{call} run watch {about or 'RUN'}",
        "PACKAGE_INVALID": "export or download the package again, then repeat the command",
        "LIMIT_EXCEEDED": "repeat the command later",
        "INTERNAL": "look for the incident in the host's log",
    }
    if error.reason_name == "RESOURCE_NOT_FOUND" and kind:
        return f"{call} {kind} list"
    if error.reason_name == "RESOURCE_EXISTS" and not kind:
        return f"{command} --help"
    return by_reason.get(error.reason_name, f"{command} --help")


def _kind(resource: str) -> str:
    return _KINDS.get(resource.partition("/")[0], "")


def _kind_in(message: str) -> str:
    found = re.search(r"\b(pipeline|environment|run|artifact|stage)s?\b", message)
    return "" if found is None else found[1].replace("stage", "pipeline")


def _part(resource: str, place: int) -> str:
    parts = resource.split("/")
    return parts[place] if len(parts) > place else ""
