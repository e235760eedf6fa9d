"""A short run of the canary harness; ``make canary`` is the long one."""

from __future__ import annotations

import base64
import gzip
import html
import json
import random
import secrets
import zlib
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import pytest
from tests.canary.canaries import Canaries, Kind, encodings
from tests.canary.flight import fly

from pipelinehost.v1.resources_pb2 import Event
from pipelinehost_dataverse.solution import WebResource, new_manifest, write

WAYS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "zlib in hex": lambda raw: zlib.compress(raw).hex().encode(),
    "base64 of gzip of JSON": lambda raw: base64.b64encode(gzip.compress(json.dumps(raw.decode()).encode())),
    "base64 in lines": lambda raw: base64.encodebytes(b"y" * 50 + raw),
    "address in JSON in JSON": lambda raw: quote(json.dumps(json.dumps(raw.decode()))).encode(),
    "XML in an address": lambda raw: quote(html.escape(raw.decode())).encode(),
    "text format of a message": lambda raw: str(Event(message=raw.decode())).encode(),
    "lines of a terminal": lambda raw: b"\n      ".join(raw[at : at + 7] for at in range(0, len(raw), 7)),
    "a message": lambda raw: Event(message=raw.decode()).SerializeToString(),
    "a file in a package": lambda raw: write(new_manifest("A", "1.0"), WebResource("cts_/a.js", raw)),
    "the first half": lambda raw: raw[: len(raw) // 2 + 8],
    "the second half": lambda raw: raw[len(raw) // 2 - 8 :],
}


@pytest.mark.parametrize("style", ["plain", "ascii", "rich", "made by others"])
def test_a_secret_is_found_however_it_was_written_down(style: str) -> None:
    """Also where the search cannot know where it begins: base64 has three alignments."""
    canaries = Canaries(random.Random(7))
    if style == "made by others":
        secret = canaries.watch(Kind.TOKEN, f"ph_0123abcd_{secrets.token_urlsafe(32)}")
    else:
        secret = canaries.plant(Kind.VALUE, style=style)
    raw = secret.text.encode()
    assert canaries.look(b"nothing of it " + bytes(range(256))) == []
    assert canaries.skim(b"nothing of it " + bytes(range(256)) * 100) == []
    for how, content in encodings(raw).items():
        # The ends of base64 are cut off there, and a part of a canary is a canary too.
        for before in (b"", b"a", b"key: "):
            assert canaries.look(before + content + b" ."), how
        assert canaries.skim(b"." * 5_000 + content + b"." * 5_000), how
    for how, way in WAYS.items():
        if style == "made by others" and "half" in how:
            continue
        found = canaries.look(b"before " + way(raw) + b" after")
        assert secret in [one.canary for one in found], how


def test_no_secret_comes_out_anywhere(tmp_path: Path) -> None:
    seed = secrets.randbelow(10**9)
    result = fly(tmp_path, 20, 200, seed, upheavals=1, say=lambda _: None)
    again = f"python -m tests.canary 20 --operations 200 --upheavals 1 --seed {seed}"
    assert list(result.record.leaks.values()) == [], again
    assert result.complaints == [], f"it proves nothing: {again}"
    assert dict(result.record.troubles) == {}, again
