"""Addresses, and where the token of a host on this machine lies."""

from pathlib import Path

import pytest

from pipelinehost.address import DEFAULT, Address
from pipelinehost.channel import find_token
from pipelinehost.errors import InvalidArgument


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("127.0.0.1:50051", "127.0.0.1", 50051),
        ("pipelines.example.com:443", "pipelines.example.com", 443),
        ("[::1]:50051", "::1", 50051),
        ("localhost:1", "localhost", 1),
    ],
)
def test_what_is_an_address(text: str, host: str, port: int) -> None:
    assert Address.parse(text) == (host, port)
    assert str(Address.parse(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "host",
        "host:",
        ":50051",
        "host:0",
        "host:65536",
        "host:x",
        "https://host:443",
        "::1:5",
        "a b:1",
        "../x:1",
        "h:1\n",
    ],
)
def test_what_is_none(text: str) -> None:
    with pytest.raises(InvalidArgument, match="not an address of the form host:port") as caught:
        Address.parse(text)
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("text", "loopback"),
    [
        ("127.0.0.1:1", True),
        ("127.9.9.9:1", True),
        ("[::1]:1", True),
        ("LOCALHOST:1", True),
        ("10.0.0.1:1", False),
        ("localhost.evil.com:1", False),
        ("127.0.0.1.evil.com:1", False),
        ("0.0.0.0:1", False),
    ],
)
def test_what_stays_on_this_machine(text: str, loopback: bool) -> None:
    assert Address.parse(text).is_loopback is loopback


def test_all_names_of_this_machine_mean_one_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "/state")
    files = {
        Address.parse(f"{h}:50051").token_file()
        for h in ("127.0.0.1", "localhost", "[::1]", "0.0.0.0", "[::]")
    }
    assert files == {Path("/state/pipelinehost/127.0.0.1_50051/token")}
    assert Address("2001:db8::1", 443).token_file() == Path("/state/pipelinehost/2001_db8__1_443/token")
    monkeypatch.setenv("XDG_STATE_HOME", "relative")
    assert Address.parse(DEFAULT).token_file().is_relative_to(Path.home() / ".local/state/pipelinehost")


def test_the_token_given_wins_then_the_variable_then_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.delenv("PIPELINEHOST_TOKEN", raising=False)
    address = Address.parse(DEFAULT)
    assert find_token(address) == ""
    address.token_file().parent.mkdir(parents=True)
    address.token_file().write_text("of the file\n", encoding="utf-8")
    assert find_token(address) == "of the file"
    monkeypatch.setenv("PIPELINEHOST_TOKEN", "of the variable")
    assert find_token(address) == "of the variable"
    assert find_token(address, "given") == "given"
    assert find_token(address, "") == ""
