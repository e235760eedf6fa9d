"""The language of filters, without a host."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelinehost.errors import InvalidArgument
from pipelinehost.v1.errors_pb2 import ErrorReason
from pipelinehost.v1.resources_pb2 import Event, Run
from pipelinehost_server.api.listing import ARTIFACTS, EVENTS, RUNS, parse


def test_terms_become_conditions() -> None:
    text = 'state=FAILED AND solution != "a \\"b\\" \\\\ c"  AND  create_time >= 1970-01-01T00:00:01.5Z '
    assert parse(RUNS, text) == (
        ("state", "=", Run.STATE_FAILED),
        ("solution", "!=", 'a "b" \\ c'),
        ("create_time", ">=", 1_500_000_000),
    )
    assert parse(EVENTS, "kind != HOST_STARTED") == (("kind", "!=", Event.KIND_HOST_STARTED),)
    assert parse(ARTIFACTS, "managed = false") == (("managed", "=", 0),)
    assert parse(RUNS, "  ") == ()


def test_times_stay_within_what_the_store_can_compare() -> None:
    ((_, _, late),) = parse(RUNS, "create_time < 9999-12-31T23:59:59Z")
    ((_, _, early),) = parse(RUNS, "create_time > 0001-01-01T00:00:00Z")
    assert (early, late) == (-(2**63 - 1), 2**63 - 1)


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        parse(RUNS, text)
    except InvalidArgument as raised:
        refused = raised
    else:
        return
    assert refused.reason == ErrorReason.ERROR_REASON_INVALID_FILTER
    assert 0 <= int(refused.metadata["position"]) <= len(text)


@given(st.text(max_size=50))
def test_any_value_can_be_written(value: str) -> None:
    written = value.replace("\\", "\\\\").replace('"', '\\"')
    assert parse(RUNS, f'solution = "{written}"') == (("solution", "=", value),)


@pytest.mark.parametrize("text", ['solution = "' + "\\\\" * 2000, "a" * 4096, "= " * 2000, " " * 4095 + "x"])
def test_long_filters_are_refused(text: str) -> None:
    with pytest.raises(InvalidArgument):
        parse(RUNS, text)
