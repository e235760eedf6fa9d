"""The command line of the host: its log lines and its usage."""

from __future__ import annotations

import logging
import subprocess
import sys

import pytest

from pipelinehost_server.__main__ import main
from pipelinehost_server.log import LogLines


def line(message: str, *arguments: object, error: BaseException | None = None) -> str:
    info = (type(error), error, error.__traceback__) if error else None
    return LogLines().format(logging.LogRecord("a.b", logging.ERROR, "", 0, message, arguments, info))


def test_a_record_is_one_line_whatever_it_holds() -> None:
    told = line("name %s", "a\nb\r\x1b[31mred\x9bm\u2028x\0")
    assert told.splitlines() == [told]
    assert told.isprintable()
    assert "ERROR a.b name a\\nb\\r\\x1b[31mred" in told


def test_a_traceback_is_in_the_line() -> None:
    try:
        raise ZeroDivisionError("by\nzero")
    except ZeroDivisionError as error:
        told = line("incident", error=error)
    assert told.splitlines() == [told]
    assert "ZeroDivisionError: by\\nzero" in told
    assert "test_main.py" in told


def test_a_token_is_never_logged() -> None:
    token = "ph_0123abcd_" + "Ab-_" * 10 + "xyz"
    told = line("token %s in %s", token, f"Bearer {token}.")
    assert told.endswith("token ph_0123abcd_… in Bearer ph_0123abcd_….")


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["serve"],
        ["serve", "--data", "x", "--advancing", "-1"],
        ["serve", "--data", "x", "--advancing", "two"],
        ["serve", "--data", "x", "--embedded-pace", "nan"],
        ["serve", "--data", "x", "--embedded-pace", "-1"],
        ["serve", "--data", "x", "--log-level", "loud"],
        ["sing"],
    ],
)
def test_wrong_usage_ends_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert "usage: pipelinehost-server" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--help"], ["serve", "--help"]])
def test_help_has_examples(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 0
    told = capsys.readouterr().out
    assert "examples:" in told
    assert "pipelinehost-server serve --data ./data" in told


def test_the_headers_of_environments_are_never_logged() -> None:
    """At the level debug httpcore tells all of them, and an environment may repeat a token there."""
    told = subprocess.run(
        [sys.executable, "-c", _QUIET], capture_output=True, text=True, timeout=60, check=True
    ).stderr
    assert "a line of ours" in told
    assert "the headers" not in told


_QUIET = """
import logging
from pipelinehost_server.log import log_to_stderr
log_to_stderr("debug")
logging.getLogger("pipelinehost_server").debug("a line of ours")
logging.getLogger("httpcore.http11").debug("the headers")
logging.getLogger("httpx").info("the headers")
"""
