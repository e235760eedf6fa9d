"""What a person means by a name: an id, a display name, or the beginning of a digest."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol, TypeVar

from pipelinehost import names
from pipelinehost.errors import InvalidArgument, NotFound, Violation
from pipelinehost.v1.errors_pb2 import ErrorReason
from pipelinehost.v1.resources_pb2 import Artifact, Pipeline, Stage


class Named(Protocol):
    """What has a resource name and a display name."""

    @property
    def name(self) -> str:
        """The full name."""

    @property
    def display_name(self) -> str:
        """Free, and not always unique."""


_N = TypeVar("_N", bound=Named)


def resource(kind: str, text: str, get: Callable[[str], _N], everything: Callable[[], Iterable[_N]]) -> _N:
    """The pipeline, environment or principal that ``text`` means.

    Args:
        kind: ``pipeline``, ``environment`` or ``principal``.
        text: its full name, its id or its display name.
        get: asks the host for one, by its full name.
        everything: asks the host for all of them.

    Raises:
        NotFound: there is none; the remedy names those that are like it.
        InvalidArgument: there are several.
    """
    if text.startswith(f"{kind}s/"):
        names.parse(kind, text, kind)
        return get(text)
    if names.is_slug(text):
        try:
            return get(f"{kind}s/{text}")
        except NotFound:
            pass
    return _one_of(kind, text, list(everything()), "the host")


def stage(text: str, pipeline: Pipeline) -> Stage:
    """The stage of a pipeline that ``text`` means: by full name, id or display name.

    Raises:
        NotFound: the pipeline has none like that.
        InvalidArgument: it has several.
    """
    return _one_of("stage", text.removeprefix(f"{pipeline.name}/stages/"), pipeline.stages, pipeline.name)


def stage_of(text: str, pipeline: Callable[[str], Pipeline]) -> tuple[Pipeline, Stage]:
    """The stage that ``PIPELINE/STAGE`` means, or its full name; and its pipeline.

    Args:
        text: what was said.
        pipeline: gives the pipeline that a word means.

    Raises:
        NotFound: there is no such pipeline, or it has no such stage.
        InvalidArgument: the text does not name both, or one of them means several.
    """
    first, slash, second = text.removeprefix("pipelines/").partition("/")
    if not slash:
        what = f"{text!r} does not say which pipeline it belongs to"
        raise InvalidArgument(
            ErrorReason.ERROR_REASON_INVALID_FIELD,
            what,
            remedy="Write the stage as PIPELINE/STAGE.",
            violations=[Violation("stage", what)],
        )
    found = pipeline(first)
    return found, stage(second.removeprefix("stages/"), found)


def artifact(text: str, everything: Callable[[], Iterable[Artifact]]) -> str:
    """The name of the artifact that ``text`` means: its name, its SHA-256, or the beginning of that.

    Args:
        text: what was said; at least six digits.
        everything: asks the host for all artifacts; needed for beginnings only.

    Raises:
        NotFound: there is none.
        InvalidArgument: there are several, or the text is no digest.
    """
    digest = text.removeprefix("artifacts/").lower()
    if re.fullmatch(r"[0-9a-f]{64}", digest):
        return names.artifact(digest)
    if re.fullmatch(r"[0-9a-f]{6,63}", digest) is None:
        names.parse("artifact", text, "artifact")
    found = [a for a in everything() if names.slug(a.name).startswith(digest)]
    if len(found) == 1:
        return found[0].name
    if not found:
        raise NotFound(
            ErrorReason.ERROR_REASON_RESOURCE_NOT_FOUND,
            f"No artifact's SHA-256 begins with {digest}.",
            remedy="List the artifacts to see what there is.",
        )
    raise _ambiguous(
        f"{len(found)} artifacts begin with {digest}",
        [f"{names.slug(a.name)[:16]} ({a.solution} {a.version})" for a in found],
    )


def term(field: str, value: str) -> str:
    """The term of a filter that asks for a field's value."""
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'{field} = "{escaped}"'


def _one_of(kind: str, text: str, candidates: Sequence[_N], where: str) -> _N:
    """The one candidate that is meant: by id, by display name, or by display name whatever the case."""
    for matching in (
        [c for c in candidates if names.slug(c.name) == text],
        [c for c in candidates if c.display_name == text],
        [c for c in candidates if c.display_name.casefold() == text.casefold()],
    ):
        if len(matching) == 1:
            return matching[0]
        if matching:
            raise _ambiguous(f"{len(matching)} {kind}s are called {text!r}", [c.name for c in matching])
    ids = {names.slug(c.name): c.name for c in candidates}
    known = ids | {c.display_name: c.name for c in candidates if c.display_name}
    close = list(dict.fromkeys(names.slug(known[word]) for word in difflib.get_close_matches(text, known)))
    if close:
        remedy = f"Did you mean {' or '.join(close)}?"
    elif ids:
        remedy = f"There is {', '.join(list(ids)[:10])}{', …' if len(ids) > 10 else ''}."
    else:
        remedy = f"There is no {kind} yet: create one first."
    raise NotFound(
        ErrorReason.ERROR_REASON_RESOURCE_NOT_FOUND,
        f"No {kind} of {where} is called {text!r}.",
        remedy=remedy,
    )


def _ambiguous(what: str, candidates: Sequence[str]) -> InvalidArgument:
    return InvalidArgument(
        ErrorReason.ERROR_REASON_INVALID_FIELD,
        f"{what}: {', '.join(candidates[:10])}{', …' if len(candidates) > 10 else ''}.",
        remedy="Use the name of the one you mean.",
        violations=[Violation("name", candidate) for candidate in candidates[:10]],
    )
