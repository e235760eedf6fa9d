"""What is printed is harmless, and reads well."""

import io
import json

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from pipelinehost.cli import console
from pipelinehost.cli.console import Column, clean, duration, plain, size, table, to_json
from pipelinehost.v1.resources_pb2 import Artifact, Environment, Run


@given(st.text())
def test_nothing_that_a_terminal_obeys_gets_through(text: str) -> None:
    for shown in (clean(text), to_json({"a": text})):
        assert not any(
            ord(c) < 32 or 127 <= ord(c) < 160 or c in "\u200f\u202e\u2028\u2066\ufeff" for c in shown
        )


@given(st.text())
def test_json_says_what_was_sent(text: str) -> None:
    assert json.loads(to_json({"a": text})) == {"a": text}


def test_an_escape_sequence_is_seen() -> None:
    assert clean("a\x1b[31mb\r\nc\u202ed") == "a�[31mb c�d"


def test_a_message_in_the_words_of_the_api() -> None:
    run = Run(name="runs/x", state=Run.STATE_WAITING_FOR_TARGET, revision=2**53 + 1)
    run.create_time.seconds = 1_760_000_000
    shown = plain(run)
    assert shown["state"] == "WAITING_FOR_TARGET"
    assert shown["revision"] == 2**53 + 1
    assert shown["create_time"] == "2025-10-09T08:53:20Z"
    assert shown["error"] is None
    assert shown["steps"] == []
    assert plain(Environment(name="x"), empty=False) == {"name": "x"}
    assert plain(Environment(installed_apps={"b": "2", "a": "1"}))["installed_apps"] == {"a": "1", "b": "2"}


def test_an_enum_value_of_a_newer_host() -> None:
    run = Run()
    run.MergeFromString(b"\x10\x63")
    assert console.enum_word(run, "state") == "99"


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(0.04, "0.0s"), (9.94, "9.9s"), (9.96, "10s"), (59.6, "1m 00s"), (61, "1m 01s"), (7260, "2h 01m")],
)
def test_durations(seconds: float, told: str) -> None:
    assert duration(seconds) == told


@pytest.mark.parametrize(
    ("count", "told"),
    [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (120 * 1024**2, "120 MiB"), (3 * 1024**3, "3.0 GiB")],
)
def test_sizes(count: int, told: str) -> None:
    assert size(count) == told


def test_no_line_of_a_table_is_wider_than_the_terminal() -> None:
    columns: list[Column[Artifact]] = [Column("A", lambda a: a.solution), Column("B", lambda a: a.publisher)]
    rows = [Artifact(solution="s" * 80, publisher="漢字" * 30), Artifact(solution="t", publisher="p")]
    text = io.StringIO()
    table(Console(file=text, width=60, force_terminal=True, color_system=None), columns, rows)
    lines = text.getvalue().splitlines()
    assert max(cell_len(line) for line in lines) <= 60
    assert all("…" in line for line in lines[1:2])
    whole = io.StringIO()
    table(Console(file=whole, width=60, soft_wrap=True), columns, rows)
    assert "漢字" * 30 in whole.getvalue()


def test_a_time_that_is_not_set_is_empty() -> None:
    assert console.moment(Timestamp()) == console.ago(Timestamp()) == ""
