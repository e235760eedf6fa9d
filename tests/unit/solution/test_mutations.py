"""Packages with one to three things wrong, made from sound ones with knowledge of their structure.

Whatever is wrong, reading ends within a second with a Solution or a PackageError. CI runs a few hundred
mutations of packages that we write; ``python tests/unit/solution/test_mutations.py 5000`` runs more, on the
real packages beside the repository too, and prints figures.
"""

from __future__ import annotations

import random
import resource
import struct
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from lxml import etree

from pipelinehost_dataverse.solution import (
    AppModule,
    CanvasApp,
    Column,
    ConnectionReference,
    EnvironmentVariable,
    OptionSet,
    PackageError,
    Role,
    Solution,
    Table,
    WebResource,
    cloud_flow,
    derived_id,
    missing,
    new_manifest,
    read,
    write,
)
from pipelinehost_dataverse.solution.archive import Archive, pack

# ruff: noqa: E501 # the lists of oddities are easier to read in few lines

MUTATIONS_IN_CI = 600

INTERESTING_NUMBERS = (0, 1, 2, 7, 8, 20, 22, 30, 46, 0x7F, 0x80, 0xFF, 0x800, 0x7FFF, 0xFFFE, 0xFFFF)
INTERESTING_TEXTS = (
    "", " ", "0", "1", "-1", "1e9", "9" * 30, "²", "{", "{}", "[]", "null", '{"a":', "[" * 3000, "/", "//", "/Workflows/",
    "/solution.xml", "\\", "..", "{00000000-0000-0000-0000-000000000000}", "{x}", "a.b.c", ".", "none", "ß", "\u0130",
    "x" * 100_000, "%s", "&amp;", "5", "380", "100000000", "true", "1.0.0.0.0", "1.2",
)  # fmt: skip
INTERESTING_NAMES = (
    "../a", "/a", "a\\b", "C:a", "CON", "a\0b", "solution.xml", "SOLUTION.XML", "a/", "a//b", "", "bots/x/bot.xml",
    "environment_variable_values.json", "environmentvariabledefinitions/x/environmentvariabledefinition.xml",
    "environmentvariabledefinitions/x/environmentvariablevalues.json", "Assets/xset.xml", "Workflows/x.json",
    "x/y/z.xml", "Controls/a/b", "é" * 200, "a/" * 300,
)  # fmt: skip
INTERESTING_CONTENTS = (
    b"", b"\0", b"<", b"<a/>", b"{}", b"[]", b"null", b"\xff\xfe<\0a\0/\0>\0", b"\xef\xbb\xbf", b"<!DOCTYPE a><a/>",
    b"<a>&lt;</a>", b'<a xmlns="rel"><b/></a>', b"<a:b xmlns:a='u'/>", b"<ImportExportXml/>", b"<?xml version='1.1'?><a/>",
    b'{"properties": {"connectionReferences": {"a": 1}}}', b'{"environmentvariablevalues": {"environmentvariablevalue": [1, {}]}}',
    b'{"values": [{"name": "a", "value": {"b": 1}}, 3]}', b'{"a": 1' + b"0" * 5000 + b"}", b"<a>" * 300,
    b"<bot schemaname=''/>", b'<botset><bot a.b="1" c.d="2"/></botset>', b"PK\x05\x06" + b"\0" * 18,
)  # fmt: skip


def _spots(package: bytes) -> list[int]:
    """Positions inside the zip's own structures, not in the members' data."""
    archive = Archive(package)
    data = sorted((m.start, m.start + m.packed) for m in archive.members.values())
    spots: list[int] = []
    position = 0
    for start, end in data:
        spots.extend(range(position, start))
        position = end
    return spots + list(range(position, len(package)))


def flip_header_bits(package: bytes, rng: random.Random) -> bytes:
    flipped = bytearray(package)
    for spot in rng.sample(_spots(package), rng.randint(1, 3)):
        flipped[spot] ^= 1 << rng.randrange(8)
    return bytes(flipped)


def set_header_field(package: bytes, rng: random.Random) -> bytes:
    changed = bytearray(package)
    signature, size = rng.choice(((b"PK\x03\x04", 30), (b"PK\x01\x02", 46), (b"PK\x05\x06", 22)))
    at = [i for i in range(len(package) - size) if package[i : i + 4] == signature]
    start = rng.choice(at) if at else len(package) - 22
    number = rng.choice(
        (*INTERESTING_NUMBERS, len(package), rng.getrandbits(16), 0xFFFFFFFF, rng.getrandbits(32))
    )
    field = start + 2 * rng.randint(2, size // 2 - 2)
    if rng.random() < 0.5:
        struct.pack_into("<H", changed, field, number & 0xFFFF)
    else:
        struct.pack_into("<L", changed, min(field, len(changed) - 4), number & 0xFFFFFFFF)
    return bytes(changed)


def change_sizes_alike(package: bytes, rng: random.Random) -> bytes:
    """The same lie about size or checksum in both headers."""
    archive = Archive(package)
    member = rng.choice(list(archive.members.values()))
    changed = bytearray(package)
    raw = member.name.encode()
    value = rng.choice(
        (*INTERESTING_NUMBERS, member.size + 1, max(0, member.size - 1), member.size * 1000, 0xFFFFFFFE)
    )
    which = rng.randrange(3)
    for signature, offset, head in ((b"PK\x03\x04", 14, 30), (b"PK\x01\x02", 16, 46)):
        at = package.find(signature)
        while at >= 0:
            if package[at + head : at + head + len(raw)] == raw:
                struct.pack_into("<L", changed, at + offset + 4 * which, value & 0xFFFFFFFF)
            at = package.find(signature, at + 1)
    return bytes(changed)


def cut(package: bytes, rng: random.Random) -> bytes:
    if rng.random() < 0.5:
        return package[: rng.randrange(len(package))]
    start = rng.randrange(len(package))
    return package[:start] + package[start + rng.randint(1, 200) :]


def insert(package: bytes, rng: random.Random) -> bytes:
    at = rng.choice((0, len(package), rng.randrange(len(package)), rng.choice(_spots(package))))
    start = rng.randrange(len(package))
    piece = rng.choice((b"\0", rng.randbytes(50), package[start : start + 300], package[-22:], package))
    return package[:at] + piece + package[at:]


def splice_directory(package: bytes, rng: random.Random) -> bytes:
    """Double, drop or swap entries of the directory, with or without correcting the end record."""
    start = package.index(b"PK\x01\x02")
    end = package.rindex(b"PK\x05\x06")
    entries = [b"PK\x01\x02" + piece for piece in package[start:end].split(b"PK\x01\x02")[1:]]
    match rng.randrange(3):
        case 0:
            entries.insert(rng.randrange(len(entries)), rng.choice(entries))
        case 1:
            entries.pop(rng.randrange(len(entries)))
        case _:
            one, other = rng.randrange(len(entries)), rng.randrange(len(entries))
            entries[one], entries[other] = (
                entries[one][:42] + entries[other][42:46] + entries[one][46:],
                entries[other][:42] + entries[one][42:46] + entries[other][46:],
            )
    directory = b"".join(entries)
    tail = bytearray(package[end:])
    if rng.random() < 0.7:
        struct.pack_into("<HHL", tail, 8, len(entries), len(entries), len(directory))
    return package[:start] + directory + bytes(tail)


def _members(package: bytes) -> dict[str, bytes]:
    archive = Archive(package)
    return {name: archive.read(member) for name, member in archive.members.items()}


def change_members(package: bytes, rng: random.Random) -> bytes:
    """Another set of files, soundly zipped."""
    members = _members(package)
    name = rng.choice(list(members))
    entries = list(members.items())
    match rng.randrange(5):
        case 0:
            entries.append(
                (rng.choice(INTERESTING_NAMES), rng.choice((*INTERESTING_CONTENTS, members[name])))
            )
        case 1:
            entries = [(n, c) for n, c in entries if n != name]
        case 2:
            entries = [(rng.choice(INTERESTING_NAMES) if n == name else n, c) for n, c in entries]
        case 3:
            entries = [(n, rng.choice(INTERESTING_CONTENTS) if n == name else c) for n, c in entries]
        case _:
            other = rng.choice(list(members))
            entries = [(n, members[other] if n == name else c) for n, c in entries]
    return pack(entries)


def mangle_bytes(package: bytes, rng: random.Random) -> bytes:
    """Other bytes in one file, soundly zipped."""
    members = _members(package)
    name = rng.choice([n for n, content in members.items() if content])
    content = bytearray(members[name])
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(content))
        match rng.randrange(4):
            case 0:
                content[at] ^= 1 << rng.randrange(8)
            case 1:
                del content[at : at + rng.randint(1, 100)]
            case 2:
                content[at:at] = rng.choice(
                    (b"<", b">", b"&", b'"', b"\0", b"]]>", b"<!--", b"{", b"}", b"\xff", b"<![CDATA[")
                )
            case _:
                content[at:at] = content[at : at + 500]
        if not content:
            content += b"x"
    return pack((members | {name: bytes(content)}).items())


def mangle_tree(package: bytes, rng: random.Random) -> bytes:
    """Another XML tree in one file: well-formed, but not what is expected."""
    members = _members(package)
    name = rng.choice([n for n in members if n.endswith(".xml")] + ["customizations.xml"] * 3)
    root = etree.fromstring(members[name])
    for _ in range(rng.randint(1, 5)):
        elements = list(root.iter("*"))
        element = rng.choice(elements)
        other = rng.choice(elements)
        match rng.randrange(8):
            case 0 if element.getparent() is not None:
                element.getparent().remove(element)  # type: ignore[union-attr] # just checked
            case 1:
                element.text = rng.choice(INTERESTING_TEXTS)
            case 2 if element.attrib:
                element.set(rng.choice(list(element.attrib)), rng.choice(INTERESTING_TEXTS))
            case 3 if element.attrib:
                del element.attrib[rng.choice(list(element.attrib))]
            case 4:
                element.tag = other.tag
            case 5 if element is not root:
                element.addnext(etree.fromstring(etree.tostring(other)))
            case 6 if (
                element not in list(other.iterancestors()) and element is not other and element is not root
            ):
                other.append(element)
            case _:
                element.set(
                    rng.choice(("id", "Name", "type", "schemaname", "id.x", "Entity")),
                    rng.choice(INTERESTING_TEXTS),
                )
    return pack((members | {name: etree.tostring(root)}).items())


MUTATIONS: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    flip_header_bits,
    set_header_field,
    change_sizes_alike,
    cut,
    insert,
    splice_directory,
    change_members,
    change_members,
    mangle_bytes,
    mangle_bytes,
    mangle_tree,
    mangle_tree,
    mangle_tree,
)


def written_packages() -> list[bytes]:
    """Seeds that need no files."""
    flow = derived_id("workflow", "Approve")
    full = write(
        new_manifest(
            "Contoso",
            "1.0.0.0",
            missing_dependencies=[missing(("connectionreference", "cts_Other"), ("workflow", flow))],
        ),
        Table(
            "cts_a",
            (Column("cts_b", lookup="account"), Column("cts_c", options="cts_d")),
            forms=("F",),
            views=("V",),
        ),
        OptionSet("cts_d", ("1", "2")),
        Role("R", ("prv",)),
        WebResource("cts_/x.js", b"alert(1)"),
        CanvasApp("cts_app", tables=("cts_a",)),
        AppModule("cts_m", tables=("cts_a",), roles=("R",)),
        ConnectionReference("cts_Mail", connector_id="/providers/Microsoft.PowerApps/apis/shared_x"),
        EnvironmentVariable("cts_V", default="1", packaged_value="2"),
        cloud_flow("Approve", connection_references=["cts_Mail"], environment_variables=["cts_V"]),
    )
    return [full, full, write(new_manifest("Empty", "1.0"))]


def run(seeds: Sequence[bytes], count: int, seed: int) -> tuple[Counter[str], float, float]:
    """Read ``count`` mutations: outcomes, the slowest in CPU seconds, and by how many MB the process grew.

    Whatever else than PackageError is raised comes through, with the number of the mutation as a note.
    """
    outcomes: Counter[str] = Counter()
    slowest = 0.0
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number in range(count):
        rng = random.Random(f"{seed}/{number}")
        package = rng.choice(seeds)
        for _ in range(rng.choice((1, 1, 1, 2, 3))):
            try:
                package = rng.choice(MUTATIONS)(package, rng)
            except (PackageError, ValueError, IndexError, LookupError, SyntaxError, struct.error):
                break  # what is no package any more is read as it is
        started = time.thread_time()
        try:
            result = read(package)
        except PackageError as error:
            outcomes[error.rule] += 1
        except BaseException as error:
            error.add_note(f"mutation {seed}/{number}")
            raise
        else:
            assert isinstance(result, Solution)
            outcomes["read"] += 1
        slowest = max(slowest, time.thread_time() - started)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    return outcomes, slowest, grown


def test_mutations_end_in_a_solution_or_a_typed_error() -> None:
    outcomes, slowest, grown = run(written_packages(), MUTATIONS_IN_CI, seed=1)
    assert outcomes.total() == MUTATIONS_IN_CI
    assert len(outcomes) > 15, "the mutations have become too tame to show anything"
    assert outcomes["read"] < MUTATIONS_IN_CI / 2
    assert slowest < 1
    assert grown < 200


if __name__ == "__main__":
    real = sorted(
        (Path(__file__).resolve().parents[4] / "shared" / "solutions" / "valid").glob("*.zip"),
        key=lambda path: path.stat().st_size,
    )
    packages = written_packages() + [path.read_bytes() for path in real]
    for package in packages:
        read(package)
    count_ = int(sys.argv[1]) if len(sys.argv) > 1 else 5000
    seed_ = int(sys.argv[2]) if len(sys.argv) > 2 else 1
    outcomes_, slowest_, grown_ = run(packages, count_, seed_)
    for rule, times in outcomes_.most_common():
        sys.stdout.write(f"{times:6} {rule}\n")
    sys.stdout.write(
        f"{count_} mutations of {len(packages)} packages: slowest {slowest_:.3f} s, grown by {grown_:.0f} MB\n"
    )
