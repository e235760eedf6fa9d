"""One run of the harness from its first operation to its judgement."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.canary import operations
from tests.canary.bed import EXCEPTIONS, Bed, Record
from tests.canary.hostile import WEBHOOKS

from pipelinehost.v1 import pipeline_host_pb2 as api


@dataclass
class Result:
    """What it came to."""

    seed: int
    seconds: float
    record: Record
    canaries: int
    """Planted ones, and those that programs made up."""
    runs: int
    echoes: int
    """Answers of hostile environments with a secret in them."""
    complaints: list[str]
    """Why the run proves nothing: an operation never happened, or a surface was never searched."""

    @property
    def clean(self) -> bool:
        """Whether no secret was found, in a run that would have found one."""
        return not self.record.leaks and not self.complaints


OUTCOMES = (
    *("run SUCCEEDED", "run FAILED IMPORT_FAILED", "run FAILED SIGN_IN_FAILED", "run FAILED VARIABLE_TYPE"),
    *("own-signed SUCCEEDED", "own-token ENVIRONMENT_DENIED"),
    *("own-refused SIGN_IN_FAILED", "own-certificate SIGN_IN_FAILED"),
    *("call INVALID_ARGUMENT", "call UNAUTHENTICATED", "call FAILED_PRECONDITION", "call NOT_FOUND"),
    *("command line 0", "command line 1"),
    *("webhook told", "webhook not told", "went back", "loss refused", "loss of others"),
    *("taken over", "frozen"),
)
"""What must have happened, for otherwise the operations did not do what they are for."""
_LONG = 1_000
"""From so many operations on an exception that was never used is one too many."""
SURFACES = ("answer", "error", "metadata", "output", "errors", "file", "database", "process", "name")


def fly(
    folder: Path, canaries: int, count: int, seed: int, *, upheavals: int, say: Callable[[str], None]
) -> Result:
    """Do ``count`` operations with ``canaries`` secrets, and search everything that comes out.

    Where chance has left out something that must have happened, it does up to as many once more.

    Args:
        folder: for everything; it is left for a look at it.
        canaries: secrets that are planted.
        count: operations.
        seed: what all choices follow from.
        upheavals: how often the host is killed or stopped among them.
        say: told how far it is.
    """
    begun = time.monotonic()
    bed = Bed(folder, canaries, seed)
    every = max(1, count // (upheavals + 1))
    # Each at least once, so that a short run means something.
    todo = [operation for _, operation in operations.OPERATIONS]
    weights, known = zip(*operations.OPERATIONS, strict=True)
    todo += bed.dice.choices(known, weights, k=max(0, count - len(todo)))
    bed.dice.shuffle(todo)
    try:
        bed.start()
        for number, operation in enumerate(todo, 1):
            _do(bed, operation)
            if number % every == 0 and number // every <= upheavals:
                _do(bed, operations.UPHEAVALS[(number // every - 1) % len(operations.UPHEAVALS)])
            if number % 250 == 0:
                say(f"{number} operations, {len(bed.runs)} runs, {bed.record.leaked} times a secret")
        _all_ended(bed)
        for _ in range(count):
            if not _lacking(bed.record):
                break
            _do(bed, bed.dice.choices(known, weights)[0])
            _all_ended(bed)
        bed.operation = "the end"
        for run in bed.runs[-200:]:
            for method in ("ListFindings", "ListRunSettings"):
                bed.call(method, getattr(api, f"{method}Request")(run=run))
        bed.call("ExportEvents", api.ExportEventsRequest(), seconds=900)
        bed.call("VerifyEvents", api.VerifyEventsRequest())
        bed.processes()
        bed.database()
        bed.files()
        bed.host.stop()
        bed.files(environments=True)
        assert bed.hostile is not None
        echoes, told = bed.hostile.echoes, bed.hostile.told
    finally:
        bed.stop()
    record = bed.record
    done = {name for name, times in record.operations.items() if times}
    complaints = [f"{op.__name__} was never done" for op in known if op.__name__ not in done]
    complaints += [f"no {surface} was searched" for surface in SURFACES if not record.answers[surface]]
    if count >= _LONG:
        complaints += [f"never used: {e.name}" for e in EXCEPTIONS if not record.allowed[e.name]]
    complaints += [f"no {outcome}" for outcome in _lacking(record)]
    complaints += [] if echoes else ["no hostile environment repeated a secret"]
    complaints += [f"the webhook {way!r} was never told" for way in WEBHOOKS if not told[way]]
    return Result(
        seed, time.monotonic() - begun, record, len(bed.canaries), len(bed.runs), echoes, complaints
    )


def _lacking(record: Record) -> list[str]:
    return [outcome for outcome in OUTCOMES if not record.outcomes[outcome]]


def _all_ended(bed: Bed) -> None:
    bed.operation = "the end"
    while bed.open:
        bed.ended(bed.open.pop())


def _do(bed: Bed, operation: operations.Operation) -> None:
    bed.operation = operation.__name__
    operation(bed)
    bed.record.operations[operation.__name__] += 1
