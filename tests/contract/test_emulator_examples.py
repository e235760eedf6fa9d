"""The examples of docs/emulator.md, run against a server: what they show is what one gets."""

import json
import re
import shlex
import ssl
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest
import trustme
from tests.e2e.processes import EmulatorProcess
from tests.unit.emulator.asked import import_body, package

from pipelinehost_dataverse.solution import Table

PAGE = Path(__file__).resolve().parents[2] / "docs" / "emulator.md"
EMPTY = "curl: (52) Empty reply from server"


@dataclass
class Example:
    """A command of the page, and what it shows to come out."""

    command: str
    output: list[str] = field(default_factory=list)


def examples() -> Iterator[Example]:
    for block in re.findall(
        r"^```console\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    ):
        found: list[Example] = []
        for line in block.replace("\\\n", " ").splitlines():
            if line.startswith("$ "):
                found.append(Example(line[2:]))
            else:
                found[-1].output.append(line)
        yield from found


@dataclass
class Curl:
    """As much of curl as the page uses."""

    client: httpx.Client
    origins: dict[str, str]
    files: Path
    token: str = ""

    def run(self, command: str) -> httpx.Response:
        words = iter(shlex.split(command.replace("$TOKEN", self.token))[1:])
        method, url, headers, form, query, body = "", "", {}, [], [], None
        get = False
        for word in words:
            if word in ("-s", "-i"):
                continue
            if word == "-G":
                get = True
            elif word == "-X":
                method = next(words)
            elif word == "-H":
                name, _, value = next(words).partition(": ")
                headers[name] = value
            elif word == "-d":
                form.append(next(words))
            elif word == "--data-urlencode":
                name, _, value = next(words).partition("=")
                query.append((name, value))
            elif word == "--json":
                body = next(words)
                if body.startswith("@"):
                    body = (self.files / body[1:]).read_text()
                headers["Content-Type"] = "application/json"
            else:
                assert word.startswith("http"), f"{word} is not known here"
                url = word
        content = body if body is not None else self.here("&".join(form)) if form else None
        if form:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        url = self.here(url) + (f"?{urlencode(query)}" if get else "")
        return self.client.request(
            method or ("POST" if content is not None else "GET"), url, headers=headers, content=content
        )

    def here(self, text: str) -> str:
        for written, actual in self.origins.items():
            text = text.replace(written, actual)
        return text


def agrees(shown: Any, found: Any) -> bool:
    if isinstance(shown, dict):
        return (
            isinstance(found, dict)
            and shown.keys() == found.keys()
            and all(agrees(shown[k], found[k]) for k in shown)
        )
    if isinstance(shown, list):
        return isinstance(found, list) and len(shown) == len(found) and all(map(agrees, shown, found))
    return found is not None if shown == "…" else bool(shown == found)


@pytest.fixture
def curl(tmp_path: Path) -> Iterator[Curl]:
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "certificate.pem")
    (tmp_path / "clients").write_text("deployer=swordfish\n")
    (tmp_path / "import.json").write_text(
        json.dumps(import_body(package("Travel", "1.0", Table("cts_trip"))))
    )
    context = ssl.create_default_context()
    authority.configure_trust(context)
    plain = EmulatorProcess(tmp_path / "plain", "qa")
    safe = EmulatorProcess(
        tmp_path / "safe",
        "qa",
        options=(
            *("--certificate", str(tmp_path / "certificate.pem"), "--key", str(tmp_path / "key.pem")),
            *("--require-token", "--clients", str(tmp_path / "clients")),
        ),
    )
    plain.start()
    safe.start()
    origins = {
        "http://127.0.0.1:8090": f"http://{plain.address}",
        "https://127.0.0.1:8443": f"https://{safe.address}",
    }
    with httpx.Client(verify=context, trust_env=False, timeout=20) as client:
        yield Curl(client, origins, tmp_path)
    assert (plain.stop(), safe.stop()) == (0, 0)
    log = (tmp_path / "plain" / "log").read_text()
    assert "qa: POST ImportSolutionAsync is unanswered (fault 1 of 1)" in log


def test_every_example_gives_what_it_shows(curl: Curl) -> None:
    seen = [example for example in examples() if example.command.startswith("curl ")]
    assert len(seen) >= 10
    for example in seen:
        if example.output == [EMPTY]:
            with pytest.raises(httpx.TransportError):
                curl.run(example.command)
            continue
        answer = curl.run(example.command)
        shown = list(example.output)
        if shown and shown[0].startswith("HTTP/1.1 "):
            status, reason = shown.pop(0).split(" ", 2)[1:]
            assert (answer.status_code, answer.reason_phrase) == (int(status), reason), example.command
            while shown and (line := shown.pop(0)):
                name, _, value = line.partition(": ")
                pattern = re.escape(curl.here(value)).replace("…", ".+")
                assert re.fullmatch(pattern, answer.headers[name]), example.command
        else:
            assert answer.is_success, (example.command, answer.text)
        text = "\n".join(shown)
        if text.startswith("{"):
            assert agrees(json.loads(text), answer.json()), (example.command, answer.text)
            curl.token = answer.json().get("access_token", curl.token)
        else:
            assert answer.text == text, example.command
        if "ImportJobKey" in text:
            wait(curl)


def wait(curl: Curl) -> None:
    """Until the import of an example has ended."""
    running = "asyncoperations/$count?$filter=statecode ne 3"
    url = curl.here(f"http://127.0.0.1:8090/qa/api/data/v9.2/{running}")
    for _ in range(1000):
        if curl.client.get(url).text == "0":
            return
    raise AssertionError("the import does not end")
