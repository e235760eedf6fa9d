"""Threats 1 to 5: archives that must be refused, each with the rule that refuses it."""

from __future__ import annotations

import hashlib
import random
import struct
import sys
import tracemalloc
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from pipelinehost_dataverse.solution import PackageError, Table, archive, new_manifest, read, write
from pipelinehost_dataverse.solution.archive import (
    MAX_ENTRIES,
    MAX_JSON,
    MAX_JSON_NODES,
    MAX_XML_NODES,
    Archive,
    pack,
)

MANIFEST = (
    b'<ImportExportXml SolutionPackageVersion="9.2" languagecode="1033"><SolutionManifest>'
    b"<UniqueName>Contoso</UniqueName><Version>1.0</Version><Managed>0</Managed>"
    b"<Publisher><UniqueName>contoso</UniqueName><CustomizationPrefix>cts</CustomizationPrefix></Publisher>"
    b"</SolutionManifest></ImportExportXml>"
)
CUSTOMIZATIONS = b"<ImportExportXml><Entities/></ImportExportXml>"
TYPES = b"<Types/>"


@dataclass
class Entry:
    """One entry; whatever is set in ``local`` and ``central`` overrides the true header fields."""

    name: str | bytes
    content: bytes = b""
    method: int = 8
    flags: int = 0
    local: Mapping[str, int | bytes] = field(default_factory=dict)
    central: Mapping[str, int | bytes] = field(default_factory=dict)
    descriptor: bytes = b""
    packed: bytes | None = None
    at: int | None = None
    """Offset that the directory gives, where it is not the true one."""
    phantom: bool = False
    """Only in the directory."""
    hidden: bool = False
    """Not in the directory."""


def solution(*more: Entry, **replaced: bytes) -> list[Entry]:
    contents = {"solution.xml": MANIFEST, "customizations.xml": CUSTOMIZATIONS, "[Content_Types].xml": TYPES}
    contents |= {
        {"manifest": "solution.xml", "customizations": "customizations.xml"}[key]: value
        for key, value in replaced.items()
    }
    return [*(Entry(name, content) for name, content in contents.items()), *more]


def craft(
    entries: list[Entry],
    *,
    prefix: bytes = b"",
    suffix: bytes = b"",
    before_directory: bytes = b"",
    after_directory: bytes = b"",
    end: dict[str, int] | None = None,
    comment: bytes = b"",
) -> bytes:
    """A zip file laid out by hand, so that every field can lie."""
    body = bytearray(prefix)
    directory = bytearray()
    for entry in entries:
        name = entry.name if isinstance(entry.name, bytes) else entry.name.encode()
        flags = entry.flags | (0 if name.isascii() or isinstance(entry.name, bytes) else 0x800)
        deflating = zlib.compressobj(1, zlib.DEFLATED, -15)
        packed = entry.packed
        if packed is None:
            packed = (
                entry.content if entry.method == 0 else deflating.compress(entry.content) + deflating.flush()
            )
        true = {
            "flags": flags,
            "method": entry.method,
            "crc": zlib.crc32(entry.content),
            "packed": len(packed),
            "size": len(entry.content),
            "name": name,
            "extra": b"",
            "comment": b"",
            "made_by": 20,
            "external": 0,
            "disk": 0,
            "needed": 20,
        }
        offset = len(body) if entry.at is None else entry.at
        local = true | dict(entry.local)
        central = true | dict(entry.central)
        if not entry.phantom:
            body += struct.pack(
                "<4s5H3L2H",
                b"PK\x03\x04",
                local["needed"],
                local["flags"],
                local["method"],
                0,
                33,
                local["crc"],
                local["packed"],
                local["size"],
                len(local["name"]),  # type: ignore[arg-type] # always bytes
                len(local["extra"]),  # type: ignore[arg-type] # always bytes
            )
            body += local["name"] + local["extra"] + packed + entry.descriptor  # type: ignore[operator] # bytes
        if entry.hidden:
            continue
        directory += struct.pack(
            "<4s6H3L5H2L",
            b"PK\x01\x02",
            central["made_by"],
            central["needed"],
            central["flags"],
            central["method"],
            0,
            33,
            central["crc"],
            central["packed"],
            central["size"],
            len(central["name"]),  # type: ignore[arg-type] # always bytes
            len(central["extra"]),  # type: ignore[arg-type] # always bytes
            len(central["comment"]),  # type: ignore[arg-type] # always bytes
            central["disk"],
            0,
            central["external"],
            offset,
        )
        directory += central["name"] + central["extra"] + central["comment"]  # type: ignore[operator] # bytes
    body += before_directory
    told = {
        "disk": 0,
        "first_disk": 0,
        "here": sum(not entry.hidden for entry in entries),
        "total": sum(not entry.hidden for entry in entries),
        "size": len(directory),
        "offset": len(body) - len(prefix),
        "comment": len(comment),
    } | (end or {})
    return bytes(
        body
        + directory
        + after_directory
        + struct.pack("<4s4H2LH", b"PK\x05\x06", *told.values())
        + comment
        + suffix
    )


def descriptor(content: bytes, *, signed: bool = True, crc: int | None = None) -> bytes:
    deflating = zlib.compressobj(1, zlib.DEFLATED, -15)
    packed = deflating.compress(content) + deflating.flush()
    told = struct.pack("<3L", zlib.crc32(content) if crc is None else crc, len(packed), len(content))
    return (b"PK\x07\x08" if signed else b"") + told


def overlapping(names: int, size: int) -> bytes:
    """The bomb of CVE-2024-0450: one entry's bytes, many names."""
    content = b"\0" * size
    first = Entry("0", content)
    return craft([first, *(Entry(str(n), content, phantom=True, at=0) for n in range(1, names))])


def quoted(names: int) -> bytes:
    """The other kind: each entry's data contains the next entry's header (a non-recursive bomb)."""
    kernel = craft([Entry("k", b"x" * 1000)])
    inner_end = kernel.index(b"PK\x01\x02")
    inner = kernel[:inner_end]
    first = Entry("a", inner, method=0)
    return craft(
        [first, Entry("k", b"x" * 1000, phantom=True, at=31), *[Entry(str(n)) for n in range(names)]]
    )


def header_cut_off() -> bytes:
    """The first entry claims all bytes but five, the second those five, the third stands beyond the end."""
    entries = solution()
    entries[0].method = 0
    length = len(craft(entries))
    claimed = length - 5 - 30 - len("solution.xml")
    entries[0].local = entries[0].central = {"packed": claimed, "size": claimed}
    entries[1].at = length - 5
    entries[2].at = 10_000
    return craft(entries)


def long_last_name() -> bytes:
    package = bytearray(craft(solution()))
    last = package.rindex(b"PK\x01\x02")
    package[last + 28 : last + 30] = b"\xff\xff"
    return bytes(package)


def many_files(count: int) -> bytes:
    return craft(solution(*[Entry(f"f/{n}", b"", method=0) for n in range(count)]))


def xml(content: bytes) -> bytes:
    return craft(solution(customizations=content))


def with_flow(definition: bytes) -> bytes:
    workflow = (
        b'<ImportExportXml><Workflows><Workflow WorkflowId="{00000000-0000-0000-0000-000000000001}" Name="f">'
        b"<JsonFileName>/Workflows/f.json</JsonFileName><Category>5</Category></Workflow></Workflows>"
        b"</ImportExportXml>"
    )
    return craft(solution(Entry("Workflows/f.json", definition), customizations=workflow))


def manifest(old: bytes, new: bytes) -> bytes:
    assert old in MANIFEST
    return craft(solution(manifest=MANIFEST.replace(old, new)))


NOISE = random.Random(1).randbytes(3 << 20)
ZIP64 = struct.pack("<HHQQ", 1, 16, 10, 10)
LAUGHS = (
    b'<!DOCTYPE l [<!ENTITY a "ha">'
    + b"".join(b'<!ENTITY %c "&%c;&%c;">' % (c + 1, c, c) for c in range(97, 120))
) + b"]><ImportExportXml>&x;</ImportExportXml>"

CORPUS: list[tuple[str, str, Callable[[], bytes]]] = [
    # Names
    ("zip slip", "zip.name", lambda: craft(solution(Entry("../evil.txt", b"x")))),
    ("zip slip, deeper", "zip.name", lambda: craft(solution(Entry("a/../../evil.txt", b"x")))),
    ("zip slip, backslashes", "zip.name", lambda: craft(solution(Entry("..\\evil.txt", b"x")))),
    ("mixed separators", "zip.name", lambda: craft(solution(Entry("a/..\\b.txt", b"x")))),
    ("mixed separators, harmless parts", "zip.name", lambda: craft(solution(Entry("a/b\\c", b"x")))),
    ("absolute", "zip.name", lambda: craft(solution(Entry("/etc/passwd", b"x")))),
    ("absolute, backslash", "zip.name", lambda: craft(solution(Entry("\\windows\\x", b"x")))),
    ("UNC", "zip.name", lambda: craft(solution(Entry("\\\\host\\share", b"x")))),
    ("drive", "zip.name", lambda: craft(solution(Entry("C:\\x", b"x")))),
    ("drive without separator", "zip.name", lambda: craft(solution(Entry("C:x", b"x")))),
    ("alternate stream", "zip.name", lambda: craft(solution(Entry("a.txt:b", b"x")))),
    ("NUL cuts the name", "zip.name", lambda: craft(solution(Entry(b"a\0b.xml", b"x")))),
    ("newline", "zip.name", lambda: craft(solution(Entry(b"a\nb", b"x")))),
    ("escape sequence", "zip.name", lambda: craft(solution(Entry(b"\x1b[2Ja", b"x")))),
    ("dot segment", "zip.name", lambda: craft(solution(Entry("a/./b", b"x")))),
    ("empty segment", "zip.name", lambda: craft(solution(Entry("a//b", b"x")))),
    ("empty name", "zip.name", lambda: craft(solution(Entry(b"", b"x")))),
    ("trailing dot", "zip.name", lambda: craft(solution(Entry("a./b", b"x")))),
    ("trailing space", "zip.name", lambda: craft(solution(Entry("solution.xml ", b"x")))),
    ("wildcard", "zip.name", lambda: craft(solution(Entry("a*b", b"x")))),
    ("invalid UTF-8", "zip.name", lambda: craft(solution(Entry(b"\xff\xfe", b"x", flags=0x800)))),
    ("overlong UTF-8", "zip.name", lambda: craft(solution(Entry(b"..\xc0\xaf", b"x", flags=0x800)))),
    ("very long", "zip.name", lambda: craft(solution(Entry("x" * 2000, b"x")))),
    ("very deep", "zip.name", lambda: craft(solution(Entry("a/" * 40 + "b", b"x")))),
    ("reserved", "zip.reserved_name", lambda: craft(solution(Entry("a/CON", b"x")))),
    ("reserved with extension", "zip.reserved_name", lambda: craft(solution(Entry("aux.txt", b"x")))),
    ("reserved in a folder", "zip.reserved_name", lambda: craft(solution(Entry("nul.d/x", b"x")))),
    ("reserved, superscript", "zip.reserved_name", lambda: craft(solution(Entry("COM¹.txt", b"x")))),
    ("symbolic link", "zip.link", lambda: craft(solution(
        Entry("a", b"/etc/passwd", central={"made_by": 3 << 8, "external": 0o120777 << 16})))),
    ("device", "zip.link", lambda: craft(solution(
        Entry("a", b"", central={"made_by": 3 << 8, "external": 0o020666 << 16})))),
    ("second name in an extra field", "zip.extra", lambda: craft(solution(
        Entry("a", b"x", local={"extra": struct.pack("<HH", 0x7075, 6) + b"\1....b"})))),
    ("extra field cut off", "zip.extra", lambda: craft(solution(
        Entry("a", b"x", central={"extra": struct.pack("<HH", 10, 32)})))),
    # Duplicates
    ("same name", "zip.duplicate", lambda: craft(solution(Entry("solution.xml", MANIFEST)))),
    ("other case", "zip.duplicate", lambda: craft(solution(Entry("Solution.XML", MANIFEST)))),
    ("sharp s", "zip.duplicate", lambda: craft(solution(Entry("straße", b"1"), Entry("STRASSE", b"2")))),
    ("other normal form", "zip.duplicate", lambda: craft(solution(
        Entry(unicodedata.normalize("NFC", "é"), b"1"), Entry(unicodedata.normalize("NFD", "é"), b"2")))),
    ("other separator", "zip.duplicate", lambda: craft(solution(Entry("a/b", b"1"), Entry("a\\b", b"2")))),
    ("file and folder", "zip.duplicate", lambda: craft(solution(Entry("a", b"1"), Entry("a/b", b"2")))),
    ("folder and file", "zip.duplicate", lambda: craft(solution(Entry("a/b", b"2"), Entry("A", b"1")))),
    ("folder entry and file", "zip.duplicate", lambda: craft(
        solution(Entry("a/", method=0), Entry("a", b"1")))),
    # Structure
    ("overlapping entries", "zip.overlap", lambda: overlapping(1000, 10_000)),
    ("entry inside an entry", "zip.overlap", lambda: quoted(3)),
    ("entry outside of the archive", "zip.mismatch", lambda: craft(
        solution(Entry("a", phantom=True, at=10_000)))),
    ("header cut off by the end", "zip.mismatch", header_cut_off),
    ("prepended bytes, offsets true", "zip.gap", lambda: craft(
        solution(),
        prefix=b"#!/bin/sh\n",
        end={"offset": 10 + len(craft(solution()).partition(b"PK\x01\x02")[0])})),
    ("prepended bytes", "zip.prepended", lambda: b"GIF89a" + craft(solution())),
    ("prepended zip", "zip.two_endings", lambda: craft(solution()) + craft(solution())),
    ("appended byte", "zip.trailing", lambda: craft(solution()) + b"\n"),
    ("appended text", "zip.trailing", lambda: craft(solution(), suffix=b"<script>alert(1)</script>")),
    ("second end record in the comment", "zip.two_endings", lambda: craft(
        solution(), comment=b"\0" + struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 0, 0, 0, 0, 9) + b"z")),
    ("second end record before the end", "zip.two_endings", lambda: craft(
        solution(), after_directory=struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 0, 0, 0, 0, 22))),
    ("no entries but bytes", "zip.gap", lambda: craft([Entry("a", b"x", hidden=True)])),
    ("gap before the directory", "zip.gap", lambda: craft(solution(), before_directory=b"hidden")),
    ("hidden entry", "zip.gap", lambda: craft(
        solution(), before_directory=craft([Entry("hidden", b"x")]).partition(b"PK\x01\x02")[0])),
    ("gap between entries", "zip.gap", lambda: craft([Entry("a", b"x", descriptor=b"...."), *solution()])),
    ("first entry hidden", "zip.gap", lambda: craft(
        [Entry("evil", b"x", hidden=True), *solution()])),
    ("names differ", "zip.mismatch", lambda: craft(solution(Entry("a", b"x", local={"name": b"b"})))),
    ("methods differ", "zip.mismatch", lambda: craft(solution(Entry("a", b"x", local={"method": 0})))),
    ("flags differ", "zip.mismatch", lambda: craft(solution(Entry("a", b"x", local={"flags": 2})))),
    ("checksums differ", "zip.mismatch", lambda: craft(solution(Entry("a", b"x", local={"crc": 1})))),
    ("sizes differ", "zip.mismatch", lambda: craft(solution(Entry("a", b"x", local={"size": 2})))),
    ("no local header", "zip.mismatch", lambda: craft(solution(Entry("a", b"x"))).replace(
        b"PK\x03\x04", b"PK\x03\x05", 1)),
    ("descriptor differs", "zip.mismatch", lambda: craft(solution(
        Entry("a", b"x", flags=8, descriptor=descriptor(b"x", crc=1))))),
    ("descriptor missing", "zip.mismatch", lambda: craft(solution(Entry("a", b"x", flags=8)))),
    ("too many in the end record", "zip.directory", lambda: craft(solution(), end={"here": 4, "total": 4})),
    ("too few in the end record", "zip.directory", lambda: craft(solution(), end={"here": 2, "total": 2})),
    ("name beyond the directory", "zip.directory", long_last_name),
    ("directory elsewhere", "zip.damaged", lambda: craft(solution(), end={"offset": 5, "size": 10})),
    ("byte missing inside", "zip.damaged", lambda: craft(solution())[:50] + craft(solution())[51:]),
    ("split archive", "zip.multi_disk", lambda: craft(solution(), end={"disk": 1})),
    ("entry on another disk", "zip.multi_disk", lambda: craft(solution(Entry("a", central={"disk": 1})))),
    ("zip64 locator", "zip.zip64", lambda: craft(
        solution(), after_directory=struct.pack("<4sLQL", b"PK\x06\x07", 0, 0, 1))),
    ("zip64 count", "zip.zip64", lambda: craft(solution(), end={"here": 0xFFFF, "total": 0xFFFF})),
    ("zip64 offset", "zip.zip64", lambda: craft(solution(), end={"offset": 0xFFFFFFFF})),
    ("zip64 size", "zip.zip64", lambda: craft(solution(
        Entry("a", b"x", central={"size": 0xFFFFFFFF, "extra": struct.pack("<HHQ", 2, 8, 1)})))),
    ("zip64 extra field", "zip.zip64", lambda: craft(solution(Entry("a", b"x", local={"extra": ZIP64})))),
    ("encrypted", "zip.encrypted", lambda: craft(solution(Entry("a", b"x", flags=1)))),
    ("strongly encrypted", "zip.encrypted", lambda: craft(solution(Entry("a", b"x", flags=0x41)))),
    ("AES", "zip.encrypted", lambda: craft(solution(
        Entry("a", b"x", local={"extra": struct.pack("<HH", 0x9901, 0)})))),
    ("patched data", "zip.flags", lambda: craft(solution(Entry("a", b"x", flags=0x20)))),
    ("bzip2", "zip.method", lambda: craft(solution(Entry("a", b"x", method=12, packed=b"BZh9")))),
    ("lzma", "zip.method", lambda: craft(solution(Entry("a", b"x", method=14, packed=b"....")))),
    ("implode", "zip.method", lambda: craft(solution(Entry("a", b"x", method=6, packed=b"....")))),
    # Content
    ("checksum wrong in both headers", "zip.crc", lambda: craft(solution(
        Entry("a", b"x", local={"crc": 1}, central={"crc": 1})))),
    ("checksum wrong, large member", "zip.crc", lambda: craft(solution(
        Entry("a", NOISE, method=0, local={"crc": 1}, central={"crc": 1})))),
    ("larger than it says", "zip.size", lambda: craft(solution(
        Entry("a", b"x" * 99, local={"size": 98}, central={"size": 98})))),
    ("far larger than it says", "zip.size", lambda: craft(solution(
        Entry("a", b"x" * (64 << 20), local={"size": 10}, central={"size": 10})))),
    ("smaller than it says", "zip.size", lambda: craft(solution(
        Entry("a", b"x" * 99, local={"size": 100}, central={"size": 100})))),
    ("large, larger than it says", "zip.size", lambda: craft(solution(
        Entry("a", NOISE, local={"size": 2 << 20}, central={"size": 2 << 20})))),
    ("stored with two sizes", "zip.size", lambda: craft(solution(
        Entry("a", b"xx", method=0, local={"size": 3}, central={"size": 3})))),
    ("folder with content", "zip.size", lambda: craft(solution(Entry("a/", b"x")))),
    ("damaged deflate", "zip.deflate", lambda: craft(solution(Entry("a", b"x", packed=b"\xff\xff\xff")))),
    ("deflate cut off", "zip.deflate", lambda: craft(solution(
        Entry("a", b"xyz" * 99, packed=zlib.compress(b"xyz" * 99)[2:10])))),
    ("bytes behind deflate", "zip.deflate", lambda: craft(solution(
        Entry("a", b"x", packed=zlib.compress(b"x", wbits=-15) + b"hidden")))),
    ("bytes behind a large deflate", "zip.deflate", lambda: craft(solution(
        Entry("a", b"ab" * (1 << 20), packed=zlib.compress(b"ab" * (1 << 20), 1, wbits=-15) + b"h" * 9999)))),
    ("steep", "zip.ratio", lambda: craft(solution(Entry("a", b"\0" * (8 << 20))))),
    ("large together", "zip.total", lambda: craft(solution(
        *[Entry(str(n), b"\0" * (1 << 20)) for n in range(97)]))),
    ("large member", "zip.member_size", lambda: craft(solution(
        Entry("a", b"x", local={"size": 200 << 20}, central={"size": 200 << 20})))),
    ("many files", "zip.entries", lambda: many_files(MAX_ENTRIES)),
    # XML and JSON
    ("entity expansion", "xml.doctype", lambda: xml(LAUGHS)),
    ("external entity", "xml.doctype", lambda: xml(
        b'<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><ImportExportXml>&x;</ImportExportXml>')),
    ("external subset", "xml.doctype", lambda: xml(
        b'<!DOCTYPE ImportExportXml SYSTEM "http://127.0.0.1:9/x.dtd"><ImportExportXml/>')),
    ("parameter entity", "xml.doctype", lambda: xml(
        b'<!DOCTYPE a [<!ENTITY % x SYSTEM "http://127.0.0.1:9/"> %x;]><ImportExportXml/>')),
    ("harmless doctype", "xml.doctype", lambda: xml(b"<!DOCTYPE ImportExportXml><ImportExportXml/>")),
    ("doctype behind a comment", "xml.doctype", lambda: xml(
        b"\xef\xbb\xbf<?xml version='1.0'?><!-- <ImportExportXml> --><?a ?> <!DOCTYPE a><ImportExportXml/>")),
    ("doctype in the manifest", "xml.doctype", lambda: craft(solution(manifest=b"<!DOCTYPE a>" + MANIFEST))),
    ("doctype in a folder component", "xml.doctype", lambda: craft(solution(
        Entry("bots/a/bot.xml", b'<!DOCTYPE a><bot schemaname="a"/>')))),
    ("undefined entity", "xml.malformed", lambda: xml(b"<ImportExportXml>&x;</ImportExportXml>")),
    ("UTF-16", "xml.encoding", lambda: xml(CUSTOMIZATIONS.decode().encode("utf-16"))),
    ("UTF-16 without a mark", "xml.encoding", lambda: xml(CUSTOMIZATIONS.decode().encode("utf-16-le"))),
    ("UTF-16 big end first", "xml.encoding", lambda: xml(CUSTOMIZATIONS.decode().encode("utf-16-be"))),
    ("UTF-32", "xml.encoding", lambda: xml(CUSTOMIZATIONS.decode().encode("utf-32"))),
    ("UTF-7", "xml.encoding", lambda: xml(b'<?xml version="1.0" encoding="UTF-7"?>+ADw-a/+AD4-')),
    ("UTF-7 undeclared", "xml.encoding", lambda: xml(b"+ADw-ImportExportXml/+AD4-")),
    ("EBCDIC", "xml.encoding", lambda: xml(
        '<?xml version="1.0" encoding="cp037"?><a/>'.encode("cp037"))),
    ("Latin-1", "xml.encoding", lambda: xml(
        b'<?xml version="1.0" encoding="latin-1"?><ImportExportXml/>')),
    ("invalid UTF-8 text", "xml.malformed", lambda: xml(b"<ImportExportXml>\xff</ImportExportXml>")),
    ("two marks", "xml.encoding", lambda: xml(b"\xef\xbb\xbf\xef\xbb\xbf" + CUSTOMIZATIONS)),
    ("empty", "xml.encoding", lambda: xml(b"")),
    ("cut off", "xml.malformed", lambda: xml(CUSTOMIZATIONS[:-3])),
    ("raw < in an attribute", "xml.malformed", lambda: xml(b'<ImportExportXml a="<"/>')),
    ("deep", "xml.malformed", lambda: xml(b"<ImportExportXml>" + b"<a>" * 5000)),
    ("many elements", "xml.nodes", lambda: xml(
        b"<a>" + b"".join(b"<a/>%d" % n for n in range(MAX_XML_NODES)) + b"</a>")),
    ("many attributes", "xml.nodes", lambda: xml(
        b"<ImportExportXml><Zs><Z " + b" ".join(b"a%d='%x'" % (n, n * n) for n in range(90_000))
        + b"/></Zs></ImportExportXml>")),
    ("many namespaces", "xml.namespaces", lambda: xml(
        b"<ImportExportXml " + b" ".join(b"xmlns:n%d='u:%d'" % (n, n) for n in range(99)) + b"/>")),
    ("large XML", "xml.size", lambda: craft([
        solution()[0], Entry("customizations.xml", b" " * (33 << 20), method=0), solution()[2]])),
    ("JSON cut off", "json.malformed", lambda: with_flow(b'{"properties": {')),
    ("JSON in UTF-16", "json.malformed", lambda: with_flow('{"properties": {}}'.encode("utf-16"))),
    ("deep JSON", "json.malformed", lambda: with_flow(b"[" * 100_000)),
    ("long number", "json.malformed", lambda: with_flow(b"1" * 100_000)),
    ("large JSON", "json.size", lambda: with_flow(
        b'"' + random.Random(1).randbytes(MAX_JSON).hex().encode() + b'"')),
    ("many JSON values", "json.size", lambda: with_flow(
        b"[" + b",".join(b"%d" % (n * n) for n in range(MAX_JSON_NODES)) + b"]")),
    # The manifest
    ("other root", "manifest.root", lambda: craft(solution(manifest=b"<Solution/>"))),
    ("two manifests", "manifest.root", lambda: manifest(
        b"</SolutionManifest>", b"</SolutionManifest><SolutionManifest/>")),
    ("two versions", "manifest.ambiguous", lambda: manifest(
        b"<Managed>", b"<Version>9.9</Version><Managed>")),
    ("no name", "manifest.unique_name", lambda: manifest(b"<UniqueName>Contoso</UniqueName>", b"")),
    ("odd name", "manifest.unique_name", lambda: manifest(b">Contoso<", b">../../x<")),
    ("no version", "manifest.version", lambda: manifest(b"1.0", b"")),
    ("odd version", "manifest.version", lambda: manifest(b"1.0", b"1.0-beta")),
    ("both modes", "manifest.managed", lambda: manifest(b"<Managed>0", b"<Managed>2")),
    ("no publisher", "manifest.publisher", lambda: manifest(b"<UniqueName>contoso</UniqueName>", b"")),
    ("odd language", "manifest.number", lambda: manifest(b"1033", b"en-us")),
    ("other content", "customizations.root", lambda: xml(b"<Customizations/>")),
    ("odd variable", "customizations.variable", lambda: xml(
        b"<ImportExportXml><EnvironmentVariables><Definition><SchemaName>a</SchemaName><Type>7</Type>"
        b"</Definition></EnvironmentVariables></ImportExportXml>")),
    ("many dependencies", "package.dependencies", lambda: xml(
        b"<ImportExportXml><Zs><Z id='1'>"
        + b"".join(b'<Library name="%d"/>' % n for n in range(80_001))
        + b"</Z></Zs></ImportExportXml>")),
    ("many components", "package.components", lambda: xml(
        b"<ImportExportXml><Zs>"
        + b"".join(b'<Z id="%d"/>' % n for n in range(20_001))
        + b"</Zs></ImportExportXml>")),
]  # fmt: skip


@contextmanager
def calls() -> Iterator[Callable[[], int]]:
    """Counts the calls of functions in the block: work, as it is on every machine."""
    made = 0

    def count(_frame: object, event: str, _argument: object) -> None:
        nonlocal made
        made += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        yield lambda: made
    finally:
        sys.setprofile(None)


def test_the_corpus_is_large_and_the_crafted_package_sound() -> None:
    assert len(CORPUS) >= 60
    assert read(craft(solution())).manifest.unique_name == "Contoso"


@pytest.mark.parametrize(("rule", "build"), [pytest.param(r, b, id=name) for name, r, b in CORPUS])
def test_refuses(rule: str, build: Callable[[], bytes]) -> None:
    package = build()
    with calls() as made, pytest.raises(PackageError) as caught:
        read(package)
    assert made() < 2_000_000
    assert caught.value.rule == rule
    assert caught.value.message.strip()
    assert caught.value.remedy.strip()


def test_the_bomb_of_finding_2_is_refused_with_nothing_inflated(monkeypatch: pytest.MonkeyPatch) -> None:
    """Under 60 KB, 1,000 names of the same bytes, 10 GB out."""
    size = 10 << 20
    deflating = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = deflating.compress(b"\0" * size) + deflating.flush()
    fields = {"size": size, "crc": 0}
    names = [
        Entry(f"{n:03}", phantom=True, at=0, local=fields, central=fields | {"packed": len(packed)})
        for n in range(1000)
    ]
    names[0].phantom = False
    names[0].packed = packed
    bomb = craft(names)
    assert len(bomb) < 70_000
    inflated: list[str] = []
    monkeypatch.setattr(archive, "_inflate", lambda _, member: inflated.append(member.name))
    tracemalloc.start()
    with calls() as made, pytest.raises(PackageError):
        read(bomb)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert inflated == []
    assert made() < 20_000
    assert peak < 5_000_000


def test_takes_data_descriptors_stored_members_folders_and_comments() -> None:
    entries = solution(
        Entry("WebResources/", method=0),
        Entry("a", b"stored", method=0),
        Entry("b", b"x", flags=8, local={"crc": 0, "packed": 0, "size": 0}, descriptor=descriptor(b"x")),
        Entry("c", b"y", flags=8, descriptor=descriptor(b"y", signed=False)),
        Entry("d", b"z", central={"comment": b"a comment", "extra": struct.pack("<HHL", 10, 4, 0)}),
    )
    solution_ = read(craft(entries, comment=b"made by hand"))
    assert [c.key for c in solution_.components if c.kind == "packagefile"] == ["a", "b", "c", "d"]


@pytest.mark.parametrize("surplus", [-1, 0, 1])
@pytest.mark.parametrize("chunks", [1, 2, 3])
def test_takes_members_of_whole_chunks(chunks: int, surplus: int) -> None:
    content = (NOISE[:20_000] * 200)[: (chunks << 20) + surplus]
    package = craft(solution(Entry("a", content), Entry("b", content, method=0)))
    first, second = read(package).components
    assert first.sha256 == second.sha256 == hashlib.sha256(hashlib.sha256(content).digest()).digest()


def test_takes_backslashes_where_they_are_the_only_separators() -> None:
    package = craft(solution(Entry("bots\\cts_bot\\bot.xml", b'<bot schemaname="cts_bot"/>')))
    assert [(c.kind, c.key) for c in read(package).components] == [("bot", "cts_bot")]


def test_takes_byte_order_marks_and_text_that_looks_like_a_doctype() -> None:
    customizations = (
        b'\xef\xbb\xbf<?xml version="1.0" encoding="utf-8"?>\n<!-- <!DOCTYPE html> -->\n<ImportExportXml>'
        b"<Templates><EmailTemplates><EmailTemplate><templateid>{00000000-0000-0000-0000-00000000000A}"
        b"</templateid><body><![CDATA[<!DOCTYPE html><html xmlns='x'/>]]></body></EmailTemplate>"
        b"</EmailTemplates></Templates></ImportExportXml>"
    )
    package = craft(solution(manifest=b"\xef\xbb\xbf" + MANIFEST, customizations=customizations))
    assert [c.identity for c in read(package).components] == [
        ("template", "00000000-0000-0000-0000-00000000000a")
    ]


def test_the_parser_itself_expands_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The second line behind the check for a DOCTYPE."""
    monkeypatch.setattr(archive, "_has_doctype", lambda content: False)
    secret = tmp_path / "secret"
    secret.write_text("<Roles><Role id='s3cret'/></Roles>")
    inner = "<Roles><Role id='s3cret'/></Roles>"
    for declaration in (f'<!ENTITY x SYSTEM "{secret.as_uri()}">', f'<!ENTITY x "{inner}">'):
        content = f"<!DOCTYPE a [{declaration}]><ImportExportXml>&x;</ImportExportXml>"
        with suppress(PackageError):
            assert "s3cret" not in {c.key for c in read(xml(content.encode())).components}


def test_namespaces_in_text_do_not_count() -> None:
    text = b"&lt;a xmlns='x'/&gt;" * 500
    assert read(xml(b"<ImportExportXml><Zs><Z id='1'>" + text + b"</Z></Zs></ImportExportXml>")).components


def test_every_flipped_header_bit_is_noticed_or_harmless() -> None:
    """Whatever a flipped bit of the zip structure does, the result is an error or the very same solution."""
    seed = write(new_manifest("Contoso", "1.0"), Table("cts_a"))
    sound = read(seed)
    members = Archive(seed).members
    in_content = {
        position
        for member in members.values()
        for position in range(member.start, member.start + member.packed)
    }
    harmless = 0
    for position in range(len(seed)):
        if position in in_content:
            continue
        for bit in range(8):
            flipped = bytearray(seed)
            flipped[position] ^= 1 << bit
            try:
                got = read(bytes(flipped))
            except PackageError:
                continue
            harmless += 1
            assert (got.manifest, got.components) == (sound.manifest, sound.components), (position, bit)
    assert harmless  # dates and versions


def test_every_truncation_is_refused() -> None:
    seed = write(new_manifest("Contoso", "1.0"), Table("cts_a"))
    for length in range(len(seed)):
        with pytest.raises(PackageError) as caught:
            read(seed[:length])
        expected = "package.empty" if not length else "package.not_zip" if length < 4 else "zip.truncated"
        assert caught.value.rule == expected, length


def test_nested_archives_are_opaque() -> None:
    inner = pack([("solution.xml", b"<!DOCTYPE x>"), ("../x", b"")])
    package = craft(solution(Entry("CanvasApps/a_DocumentUri.msapp", inner, method=0)))
    assert [c.kind for c in read(package).components] == ["packagefile"]


def test_zipfile_reads_what_pack_writes(tmp_path: Path) -> None:
    content = random.Random(2).randbytes(5000)
    path = tmp_path / "a.zip"
    path.write_bytes(pack([("a/b.bin", content), ("ü.txt", b"")]))
    with zipfile.ZipFile(path) as reader:
        assert reader.testzip() is None
        assert reader.namelist() == ["a/b.bin", "ü.txt"]
        assert reader.read("a/b.bin") == content
