"""Arguments and options that several commands take."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])
PATH = click.Path(path_type=Path)
"""Where to write."""
FILE = click.Path(path_type=Path, dir_okay=False, exists=True)
"""What to read."""


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
    quoted = [_term(field, value) for field, value in terms.items() if value]
    return " AND ".join([*quoted, expression] if expression else quoted)


def _term(field: str, value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'{field} = "{escaped}"'


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
