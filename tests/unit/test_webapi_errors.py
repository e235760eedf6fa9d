"""What an environment says, made safe to tell: one line, no escapes, no secret."""

import asyncio
import html
import json
import re
from collections.abc import Callable, Iterable
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelinehost_dataverse.webapi import errors as webapi_errors
from pipelinehost_dataverse.webapi.errors import error_code, hush, plain


@given(st.text() | st.text(st.sampled_from("\x1b[]0;31m\x07\x9b\n\r\t\u202e\u2028\ud800ab")))
def test_plain_text_is_one_printable_line_and_stays_as_it_is(text: str) -> None:
    once = plain(text, 50)
    assert len(once) <= 50
    assert not re.search(r"[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", once)
    assert plain(once, 50) == once


@pytest.mark.parametrize(
    ("given_code", "expected"),
    [
        ("0x8004801d", "0x8004801D"),
        ("8004801D", "0x8004801D"),
        (-2147188707, "0x8004801D"),
        ("-2147188707", "0x8004801D"),
        (2147778589, "0x8004801D"),
        ("ConnectionNotFound", "ConnectionNotFound"),
        ("0", ""),
        (0, ""),
        ("0x00000000", ""),
        (None, ""),
        (True, ""),
        ("", ""),
    ],
)
def test_error_codes_have_one_spelling(given_code: object, expected: str) -> None:
    assert error_code(given_code) == expected


SECRET = "pa\"ss<w&rd%+/'\\é 1\n2nd line"


@pytest.mark.parametrize(
    "written",
    [
        str,
        json.dumps,
        lambda s: json.dumps(s, ensure_ascii=False),
        html.escape,
        lambda s: html.escape(s, quote=False),
        quote,
        lambda s: quote(s, ""),
        lambda s: quote(s, "").lower(),
        repr,
        lambda s: s.split("\n")[0],
    ],
)
async def test_what_was_hushed_is_not_told(written: Callable[[str], str]) -> None:
    hush(SECRET, "no")
    told = plain(f"it is {written(SECRET)}, no more")
    assert told.startswith("it is ")
    assert told.endswith(", no more")
    assert "…" in told
    for piece in ("ss<w", "ss&lt;", "ss%3", "rd%", "2nd"):
        assert piece not in told


def test_a_signed_token_is_not_told() -> None:
    assert plain("got eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhZGEifQ.c2lnbmF0dXJl-_.") == "got …."


async def test_what_is_hushed_is_hushed_in_its_task_only() -> None:
    async def one() -> str:
        hush("mine, not yours")
        await asyncio.sleep(0)
        return plain("mine, not yours")

    assert await asyncio.create_task(one()) == "…"
    assert plain("mine, not yours") == "mine, not yours"


async def test_what_is_hushed_costs_a_text_nothing_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """An import log has thousands of texts."""
    written: list[str] = []
    plainly = webapi_errors._written

    def counted(secret: str) -> Iterable[str]:
        written.append(secret)
        return plainly(secret)

    monkeypatch.setattr(webapi_errors, "_written", counted)
    hush("first one", "second one")
    once = len(written)
    assert set(written) == {"first one", "second one"}
    for _ in range(3):
        assert plain("a first one text") == "a … text"
        hush("second one")
    assert len(written) == once
