"""Arguments and options that several commands take."""

from __future__ import annotations

import datetime as dt
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from pipelinehost import lookup

_SHAPE = re.compile(r"\d{4}-\d\d-\d\d")
F = TypeVar("F", bound=Callable[..., Any])
PATH = click.Path(path_type=Path)
"""Where to write."""
FILE = click.Path(path_type=Path, dir_okay=False, exists=True)
"""What to read."""


def _time(context: click.Context, param: click.Parameter, value: str | None) -> dt.datetime | None:
    """The time that is meant; without an offset it is one of this user's zone."""
    if value is None:
        return None
    try:
        said = dt.datetime.fromisoformat(value)
        meant = said.astimezone()
    except (ValueError, OverflowError) as error:
        why = f" ({error})" if _SHAPE.match(value) else ""
        told = f"{value!r} is no time like 2026-12-27T06:00 or 2026-12-27T06:00+01:00{why}."
        raise click.BadParameter(told, context, param) from None
    if said.tzinfo is None and meant.replace(tzinfo=None) != said:
        told = (
            f"{value!r} is skipped in your zone: clocks are put forward then. Say another time, or an offset."
        )
        raise click.BadParameter(told, context, param)
    return meant


at = click.option("--at", metavar="TIME", callback=_time, help="Not before; with an offset, or of your zone.")


def scheduled(at: dt.datetime) -> str:
    """Says when a run may go on, in the user's zone and in UTC; or that the time has passed."""
    both = f"{at.isoformat(timespec='seconds')} ({at.astimezone(dt.UTC):%Y-%m-%dT%H:%M:%SZ})"
    if at <= dt.datetime.now(dt.UTC):
        return f"{both} has passed: the run goes on now"
    return f"scheduled: not before {both}"


override = click.option(
    "--override-reason",
    metavar="REASON",
    default="",
    help="Go through freezes, for the record; administrators only.",
)


def output(*forms: str) -> Callable[[F], F]:
    """``-o``: one of these forms, by default the first."""
    return click.option(
        "-o",
        "--output",
        "form",
        type=click.Choice(forms),
        default=forms[0],
        show_default=True,
        help="What to write to stdout.",
    )


listed = output("table", "json", "jsonl", "name")
single = output("table", "json", "name")


def limit(default: int) -> Callable[[F], F]:
    """``-n``: how many at most."""
    return click.option(
        "-n", "--limit", type=click.IntRange(1), default=default, show_default=True, help="How many at most."
    )


filtered = click.option(
    "--filter", "expression", metavar="EXPRESSION", default="", help="As the API has it: state = FAILED AND …"
)
yes = click.option("-y", "--yes", is_flag=True, help="Do not ask.")


def filter_text(expression: str, **terms: str | None) -> str:
    """A filter of the API that asks for these fields' values and for the expression, where there is one."""
    quoted = [lookup.term(field, value) for field, value in terms.items() if value]
    return " AND ".join([*quoted, expression] if expression else quoted)


def confirm(question: str, *, yes: bool) -> None:
    """Asks a person, unless told not to; without a terminal there is nobody to ask."""
    if not yes and sys.stdin.isatty():
        click.confirm(question, abort=True, err=True)


wait = click.option(
    "--wait/--detach", "wait", default=True, show_default=True, help="Follow the run to its end, or leave it."
)
timeout = click.option(
    "--timeout",
    type=click.FloatRange(0, min_open=True),
    metavar="SECONDS",
    help="Leave the run after so long.",
)
