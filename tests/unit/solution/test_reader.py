"""What a file really is, what reading touches, and what it gives."""

from __future__ import annotations

import hashlib
import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from pipelinehost_dataverse.solution import (
    RULES,
    ConnectionReference,
    PackageError,
    Table,
    WebResource,
    new_manifest,
    read,
    write,
)
from pipelinehost_dataverse.solution.archive import MAX_PACKAGE, Archive, pack

PACKAGE = write(new_manifest("Contoso", "1.0"), Table("cts_a"), WebResource("cts_/b.js", b"1"))

SOMETHING_ELSE = [
    ("package.empty", b"", "empty"),
    ("package.not_zip", b"hello", "not a zip"),
    ("package.not_zip", b'{"a": 1}', "JSON"),
    ("package.not_zip", b"7z\xbc\xaf\x27\x1c\0\4", "7-Zip"),
    ("package.not_zip", b"Rar!\x1a\7\1\0", "RAR"),
    ("package.not_zip", b"\x1f\x8b\x08\0\0\0", "gzip"),
    ("package.not_zip", b"MSCF\0\0", "cabinet"),
    ("package.not_zip", b"<ImportExportXml/>", "XML"),
    ("package.web_page", b"\r\n<!DOCTYPE html><html><title>Sign in</title>", "web page"),
    ("package.web_page", b"<HTML>", "web page"),
    (
        "package.git_lfs_pointer",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1742\n",
        "1742 bytes",
    ),
    ("zip.truncated", PACKAGE[:-30], "cut off"),
    ("package.not_solution", pack([]), "no solution"),
    ("package.not_solution", pack([("a.txt", b"x")]), "no solution"),
    (
        "package.configuration_data",
        pack([("data.xml", b""), ("data_schema.xml", b"")]),
        "Configuration Migration",
    ),
    (
        "package.canvas_app",
        pack([("manifest.json", b"{}"), ("Microsoft.PowerApps/apps/1/1.json", b"{}")]),
        "canvas app or flow",
    ),
    ("package.canvas_app", pack([("Header.json", b"{}"), ("Properties.json", b"{}")]), ".msapp"),
    (
        "package.package_deployer",
        pack([("Pkg.dll", b""), ("PkgFolder/ImportConfig.xml", b"")]),
        "Package Deployer",
    ),
    ("package.nested_zips", pack([("readme.md", b""), ("out/A_1_0.zip", b"")]), "'out/A_1_0.zip'"),
    (
        "package.subfolder",
        pack([(f"A B/{n}", b"") for n in ("solution.xml", "customizations.xml", "[Content_Types].xml")]),
        "'A B'",
    ),
    (
        "package.source_tree",
        pack([("src/Other/Solution.xml", b""), ("src/Entities/a/Entity.xml", b"")]),
        "source",
    ),
    (
        "package.missing_member",
        pack([("solution.xml", b""), ("[Content_Types].xml", b"")]),
        "no customizations.xml",
    ),
    (
        "package.missing_member",
        pack([("Solution.xml", b""), ("Customizations.xml", b""), ("[Content_Types].xml", b"")]),
        "it has Solution.xml",
    ),
]


@pytest.mark.parametrize(("rule", "content", "said"), SOMETHING_ELSE)
def test_says_what_the_file_is(rule: str, content: bytes, said: str) -> None:
    with pytest.raises(PackageError) as caught:
        read(content)
    assert caught.value.rule == rule
    assert said in caught.value.message
    assert str(caught.value).endswith(f"[{rule}]")


def test_every_missing_member_is_named() -> None:
    for name in ("solution.xml", "customizations.xml", "[Content_Types].xml"):
        rest = [(n, b"") for n in ("solution.xml", "customizations.xml", "[Content_Types].xml") if n != name]
        with pytest.raises(PackageError, match=r"has no") as caught:
            read(pack(rest))
        assert name in caught.value.message


def test_every_rule_has_a_remedy_and_no_other_rule_is_named() -> None:
    folder = Path(__file__).resolve().parents[3] / "server" / "pipelinehost_dataverse" / "solution"
    text = "".join(path.read_text() for path in folder.glob("*.py") if path.name != "errors.py")
    unused = [rule for rule in RULES if f'"{rule}"' not in text]
    assert unused == []
    assert all(remedy.endswith((".", ".zip")) for remedy in RULES.values())
    with pytest.raises(KeyError):
        PackageError("zip.unheard_of", "")


def test_reads_bytes_paths_and_files_alike(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    path.write_bytes(PACKAGE)

    class Drip(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            return super().read(min(7, size if size and size > 0 else 7))

    with path.open("rb") as file:
        assert read(PACKAGE) == read(path) == read(file) == read(Drip(PACKAGE))
    assert read(PACKAGE).sha256 == hashlib.sha256(PACKAGE).digest()
    assert read(PACKAGE).size == len(PACKAGE)


def test_refuses_what_is_too_large_without_taking_it_in() -> None:
    class Endless(io.RawIOBase):
        taken = 0

        def read(self, size: int = -1, /) -> bytes:
            self.taken += size
            return bytes(size)

    endless = Endless()
    with pytest.raises(PackageError) as caught:
        read(endless)  # type: ignore[arg-type] # a raw stream has all that is needed
    assert caught.value.rule == "package.size"
    assert endless.taken == MAX_PACKAGE + 1


_heard: list[str] | None = None


def _hear(event: str, _: tuple[object, ...]) -> None:
    if _heard is not None and event.split(".")[0] in _WATCHED:
        _heard.append(event)


_WATCHED = {"open", "os", "socket", "shutil", "tempfile", "subprocess", "import", "urllib", "sqlite3"}
_hooked = False


@contextmanager
def audited() -> Iterator[list[str]]:
    """Hear which files, sockets and processes are touched. An audit hook cannot be taken out again."""
    global _heard, _hooked  # the one hook of the process needs to know where to write
    if not _hooked:
        sys.addaudithook(_hear)
        _hooked = True
    _heard = []
    try:
        yield _heard
    finally:
        _heard = None


def test_reading_touches_no_file_and_no_socket(tmp_path: Path) -> None:
    read(PACKAGE)  # imports whatever is imported lazily
    hostile = [
        b'<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><ImportExportXml>&x;</ImportExportXml>',
        b'<ImportExportXml xmlns:x="http://www.w3.org/2001/XInclude"><x:include href="/"/></ImportExportXml>',
        b'<?xml-stylesheet href="http://127.0.0.1:9/a.xsl"?><ImportExportXml/>',
    ]
    members = pack_members(PACKAGE)
    with audited() as heard:
        read(PACKAGE)
        for content in hostile:
            members |= {"customizations.xml": content}
            with suppress(PackageError):
                read(pack(members.items()))
    assert heard == []
    path = tmp_path / "a.zip"
    path.write_bytes(PACKAGE)
    with audited() as heard:
        read(path)
    assert heard == ["open"]


def test_the_audit_hook_hears() -> None:
    with audited() as heard, Path(__file__).open():
        pass
    assert heard == ["open"]


def pack_members(package: bytes) -> dict[str, bytes]:
    archive = Archive(package)
    return {name: archive.read(member) for name, member in archive.members.items()}


def test_solutions_can_be_compared_and_hold_no_xml() -> None:
    solution = read(write(new_manifest("Contoso", "1.0"), ConnectionReference("cts_a")))
    assert solution == read(write(new_manifest("Contoso", "1.0"), ConnectionReference("cts_a")))
    assert "lxml" not in repr(type(solution.components[0].name))
    assert type(solution.components[0].name) is str
