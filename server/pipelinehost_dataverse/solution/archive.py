"""A package's bytes, as far as they can be trusted: the zip structure, and the XML and JSON inside.

The zip structure is checked here and not by ``zipfile``, which (in Python 3.11) accepts overlapping entries,
duplicate names and a second archive appended to the first, and cuts a name at a NUL byte. Two programs must
never be able to read two different packages out of the same bytes, so whatever is ambiguous is refused, even
where the zip specification (APPNOTE 6.3) would permit it. Nothing is ever written.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import re
import struct
import unicodedata
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple

from lxml import etree

from pipelinehost_dataverse.solution.errors import PackageError

MAX_PACKAGE: Final = 128 << 20
"""Bytes of a package. Dataverse takes 120 MB; the rest is margin for what counts as a megabyte."""
MAX_ENTRIES: Final = 10_000
MAX_MEMBER: Final = 128 << 20
"""Bytes of one member, inflated."""
MAX_TOTAL: Final = 512 << 20
"""Bytes of all members together, inflated."""
FREE_TOTAL: Final = 96 << 20
"""A small package may inflate to this much before ``MAX_TOTAL_RATIO`` counts."""
MAX_TOTAL_RATIO: Final = 12
MAX_RATIO: Final = 200
"""Of one member over a megabyte. The steepest of the real packages at hand has 24."""
MAX_XML: Final = 32 << 20
"""Bytes of all XML that is parsed."""
MAX_XML_NODES: Final = 1_200_000
"""Of all XML that is parsed, counted as '<' plus twice '=': keeps a tree under about 140 MB."""
MAX_NAMESPACES: Final = 32
"""Declarations in one XML file: the time to write a component grows with their square."""
MAX_JSON: Final = 4 << 20
"""Bytes of one JSON file that is parsed: a tree of 4 MB of brackets takes 90 MB."""
MAX_ALL_JSON: Final = 32 << 20
MAX_JSON_NODES: Final = 600_000
"""Of all JSON that is parsed, counted as its brackets, braces and commas."""
MAX_DEPTH: Final = 32
"""Folders in one another."""

_END: Final = struct.Struct("<4s4H2LH")
_CENTRAL: Final = struct.Struct("<4s6H3L5H2L")
_LOCAL: Final = struct.Struct("<4s5H3L2H")
_DESCRIPTOR: Final = struct.Struct("<3L")

_ENCRYPTED: Final = 0x2041  # bits 0, 6 and 13: traditional, strong, masked headers
_DESCRIPTOR_FOLLOWS: Final = 0x0008
_UTF8_NAME: Final = 0x0800
_KNOWN_FLAGS: Final = _ENCRYPTED | _DESCRIPTOR_FOLLOWS | _UTF8_NAME | 0x0006  # bits 1-2: effort of deflate

_ZIP64_EXTRA: Final = 0x0001
_AES_EXTRA: Final = 0x9901
_UNICODE_PATH_EXTRA: Final = 0x7075

_STORED: Final = 0
_DEFLATED: Final = 8
_CHUNK: Final = 1 << 20
_PIECE: Final = 1 << 17
"""What a digest is computed by: inflated, it stays in the processor's cache for the checksum and the hash."""

_FORBIDDEN_IN_NAMES: Final = re.compile(r'[\x00-\x1f\x7f-\x9f:*?"<>|\ufffd]')
_RESERVED: Final = frozenset(
    ["CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$"]
    + [f"{port}{digit}" for port in ("COM", "LPT") for digit in "0123456789¹²³"]
)


class Member(NamedTuple):
    """One file of the archive; its name is checked and uses ``/``."""

    name: str
    start: int
    """Where its compressed bytes begin."""
    packed: int
    size: int
    crc: int
    method: int


class _Listed(NamedTuple):
    """What the central directory says of an entry."""

    member: Member
    """Its start is not known yet."""
    offset: int
    flags: int
    raw_name: bytes


def load(source: bytes | mmap.mmap | Path | BinaryIO) -> bytes | mmap.mmap:
    """Take in at most ``MAX_PACKAGE`` bytes.

    Raises:
        PackageError: ``package.size``.
        OSError: The file cannot be read.
    """
    if isinstance(source, Path):
        with source.open("rb") as file:
            return load(file)
    content: bytes | mmap.mmap
    if isinstance(source, bytes | mmap.mmap):
        content = source
    else:
        chunks = []
        room = MAX_PACKAGE + 1
        while room > 0 and (chunk := source.read(min(room, _CHUNK))):
            chunks.append(chunk)
            room -= len(chunk)
        content = b"".join(chunks)
    if len(content) > MAX_PACKAGE:
        raise PackageError("package.size", f"The package is larger than {MAX_PACKAGE >> 20} MiB.")
    return content


class Archive:
    """The members of a package whose structure has been checked.

    Args:
        content: The whole file.

    Raises:
        PackageError: Any ``zip.*`` rule, or the ``package.*`` rules of files that are no zip archives.
    """

    def __init__(self, content: bytes | mmap.mmap) -> None:
        self._content = content
        self._parser = etree.XMLParser(
            encoding="utf-8",
            resolve_entities=False,
            load_dtd=False,
            no_network=True,
            huge_tree=False,
            remove_blank_text=True,
            remove_comments=True,
            remove_pis=True,
        )
        self._room = {"xml": MAX_XML, "nodes": MAX_XML_NODES, "json": MAX_ALL_JSON, "values": MAX_JSON_NODES}
        self.members: dict[str, Member] = {}
        """By name, in the order of the archive's directory; without folders."""
        end = _find_end(content)
        if end is None:
            raise _no_archive(content)
        self._scan(end)

    def _scan(self, end: int) -> None:
        content = self._content
        (_, disk, first_disk, here, total, size, offset, comment) = _END.unpack_from(content, end)
        if (
            content[max(0, end - 20) : max(0, end - 16)] == b"PK\x06\x07"
            or 0xFFFF in (here, total)
            or 0xFFFFFFFF in (size, offset)
        ):
            raise PackageError("zip.zip64", "The archive uses zip64 records.")
        if disk or first_disk or here != total:
            raise PackageError("zip.multi_disk", "The file is one part of an archive that was split.")
        if total > MAX_ENTRIES:
            raise PackageError(
                "zip.entries", f"The archive holds {total} files; at most {MAX_ENTRIES} are read."
            )
        if comment and b"PK\x05\x06" in content[end + 4 :]:
            raise PackageError("zip.two_endings", "The archive has a second end record inside its comment.")
        if offset + size > end:
            raise PackageError(
                "zip.damaged",
                f"{offset + size - end} byte(s) are missing from the file: it is a damaged copy.",
            )
        if offset + size < end:
            if b"PK\x05\x06" in content[offset + size : end]:
                raise PackageError("zip.two_endings", "The archive has two end records.")
            if content[end - size : end - size + 4] == b"PK\x01\x02":
                raise PackageError(
                    "zip.prepended", f"{end - size - offset} byte(s) stand before the archive."
                )
            raise PackageError("zip.damaged", "The archive's directory is not where its end record says.")
        self._check(self._directory(offset, end, total), offset)

    def _directory(self, start: int, end: int, total: int) -> list[_Listed]:
        """The entries of the central directory, in its order."""
        content = self._content
        found = []
        allowed = max(FREE_TOTAL, min(MAX_TOTAL, len(content) * MAX_TOTAL_RATIO))
        sum_of_sizes = 0
        position = start
        for _ in range(total):
            if position + 46 > end:
                raise PackageError(
                    "zip.directory", "The archive's directory is shorter than its end record says."
                )
            (
                signature, made_by, _needed, flags, method, _time, _date, crc, packed, size,
                name_length, extra_length, comment_length, disk, _internal, external, offset,
            ) = _CENTRAL.unpack_from(content, position)  # fmt: skip
            after_name = position + 46 + name_length
            following = after_name + extra_length + comment_length
            if signature != b"PK\x01\x02" or following > end:
                raise PackageError("zip.directory", "The archive's directory is damaged.")
            raw = content[position + 46 : after_name]
            name = _checked_name(raw, flags)
            _check_extra(content[after_name : after_name + extra_length], name)
            if 0xFFFFFFFF in (packed, size, offset):
                raise PackageError("zip.zip64", f"{name!r} uses zip64 records.")
            if disk:
                raise PackageError("zip.multi_disk", "The file is one part of an archive that was split.")
            if flags & _ENCRYPTED:
                raise PackageError("zip.encrypted", f"{name!r} is encrypted.")
            if flags & ~_KNOWN_FLAGS:
                raise PackageError("zip.flags", f"{name!r} uses a zip feature that is not supported.")
            if method not in (_STORED, _DEFLATED):
                raise PackageError("zip.method", f"{name!r} is compressed with method {method}, not deflate.")
            if made_by >> 8 == 3 and external >> 28 not in (0, 4, 8):
                raise PackageError("zip.link", f"{name!r} is a link or a device, not a file.")
            if method == _STORED and packed != size:
                raise PackageError("zip.size", f"{name!r} is stored, but gives two different sizes.")
            if size > MAX_MEMBER:
                raise PackageError(
                    "zip.member_size", f"{name!r} inflates to {size} bytes; {MAX_MEMBER} are read."
                )
            if size > _CHUNK and size > packed * MAX_RATIO:
                raise PackageError("zip.ratio", f"{name!r} inflates to more than {MAX_RATIO} times its size.")
            sum_of_sizes += size
            if sum_of_sizes > allowed:
                raise PackageError(
                    "zip.total", f"The files inflate to more than {allowed >> 20} MiB together."
                )
            found.append(_Listed(Member(name, 0, packed, size, crc, method), offset, flags, raw))
            position = following
        if position != end:
            raise PackageError("zip.directory", "The archive's directory is longer than its end record says.")
        return found

    def _check(self, found: list[_Listed], directory: int) -> None:
        """Lay the extents of the entries side by side; they must fill the file up to ``directory``."""
        content = self._content
        order = sorted(range(len(found)), key=lambda index: found[index].offset)
        offsets = [found[index].offset for index in order] + [directory]
        starts = [0] * len(found)
        if offsets[0] != 0:
            raise PackageError("zip.gap", "The archive has bytes that belong to no file.")
        if max(offsets) > directory:
            raise PackageError("zip.mismatch", "The archive has an entry outside of itself.")
        for index, boundary in zip(order, offsets[1:], strict=True):
            member, offset, flags, raw = found[index]
            if offset + 30 > boundary:
                raise PackageError(
                    "zip.overlap", f"{member.name!r} overlaps with another entry of the archive."
                )
            (signature, _, own_flags, method, _, _, crc, packed, size, name_length, extra_length) = (
                _LOCAL.unpack_from(content, offset)
            )
            if signature != b"PK\x03\x04":
                raise PackageError(
                    "zip.mismatch", f"{member.name!r} is not where the archive's directory says."
                )
            name_end = offset + 30 + name_length
            start = name_end + extra_length
            end = start + member.packed
            if end > boundary:
                raise PackageError(
                    "zip.overlap", f"{member.name!r} overlaps with another entry of the archive."
                )
            if content[offset + 30 : name_end] != raw or own_flags != flags or method != member.method:
                raise PackageError(
                    "zip.mismatch", f"The archive describes {member.name!r} in two different ways."
                )
            _check_extra(content[name_end:start], member.name)
            told = (crc, packed, size)
            meant = (member.crc, member.packed, member.size)
            rest = content[end:boundary]
            if flags & _DESCRIPTOR_FOLLOWS:
                if told not in (meant, (0, 0, 0)):
                    raise PackageError("zip.mismatch", f"The archive gives two sizes of {member.name!r}.")
                if len(rest) == 16 and rest[:4] == b"PK\x07\x08":
                    rest = rest[4:]
                if len(rest) != 12 or _DESCRIPTOR.unpack(rest) != meant:
                    raise PackageError("zip.mismatch", f"What follows {member.name!r} does not describe it.")
            elif told != meant:
                raise PackageError("zip.mismatch", f"The archive gives two sizes of {member.name!r}.")
            elif rest:
                raise PackageError("zip.gap", "The archive has bytes that belong to no file.")
            starts[index] = start
        self._admit([entry.member._replace(start=start) for entry, start in zip(found, starts, strict=True)])

    def _admit(self, members: list[Member]) -> None:
        """Keep the members; two names that some file system takes for one are refused."""
        seen: set[str] = set()
        folders: set[str] = set()
        for member in members:
            folded = _folded(member.name)
            path = folded.rstrip("/")
            if path in seen or (path in folders and path == folded):
                raise PackageError("zip.duplicate", f"The archive holds {member.name!r} twice.")
            seen.add(path)
            parent = path.rpartition("/")[0]
            while parent and parent not in folders:
                folders.add(parent)
                parent = parent.rpartition("/")[0]
            if member.name.endswith("/"):
                if member.size:
                    raise PackageError("zip.size", f"The folder {member.name!r} has content.")
                folders.add(path)
                self.read(member)
            else:
                self.members[member.name] = member
        both = [m.name for m in self.members.values() if _folded(m.name) in folders]
        if both:
            raise PackageError("zip.duplicate", f"{both[0]!r} is both a file and a folder.")

    def read(self, member: Member) -> bytes:
        """The member's content, checked against its size and CRC.

        Raises:
            PackageError: ``zip.deflate``, ``zip.size``, ``zip.crc``.
        """
        packed = self._content[member.start : member.start + member.packed]
        content = packed if member.method == _STORED else _inflate(packed, member)
        if zlib.crc32(content) != member.crc:
            raise PackageError(
                "zip.crc", f"{member.name!r} does not match its checksum: the file is damaged."
            )
        return content

    def xml(self, name: str) -> etree._Element:
        """The root element of an XML member, in UTF-8 with or without a byte order mark.

        Blank text between elements, comments and processing instructions are left out.

        Raises:
            PackageError: Any ``xml.*`` rule, and those of :meth:`read`.
        """
        member = self.members[name]
        self._take("xml", member.size, name)
        content = self.read(member).removeprefix(b"\xef\xbb\xbf")
        if not content.lstrip(b" \t\r\n").startswith(b"<") or content[1:2] == b"\0":
            raise PackageError("xml.encoding", f"{name!r} is not XML in UTF-8.")
        declared = _DECLARATION.match(content)
        if declared and declared[1].lower() not in (b"utf-8", b"us-ascii"):
            raise PackageError(
                "xml.encoding", f"{name!r} declares the encoding {declared[1].decode('latin-1')!r}."
            )
        if _has_doctype(content):
            raise PackageError("xml.doctype", f"{name!r} has a document type declaration.")
        self._take("nodes", content.count(b"<") + 2 * content.count(b"="), name)
        try:
            root = etree.fromstring(content, self._parser)
        except etree.XMLSyntaxError as error:
            cause = (error.msg or "it is not well-formed")[:200]
            raise PackageError("xml.malformed", f"{name!r} cannot be read as XML: {cause}") from error
        if content.count(b"xmlns") > MAX_NAMESPACES:  # some of which may stand in text and be harmless
            declarations = etree.iterwalk(root, events=("start-ns",))
            if sum(1 for _ in declarations) > MAX_NAMESPACES:
                raise PackageError(
                    "xml.namespaces", f"{name!r} declares more than {MAX_NAMESPACES} namespaces."
                )
        return root

    def json(self, name: str) -> Any:
        """The value of a JSON member, in UTF-8 with or without a byte order mark.

        Raises:
            PackageError: ``json.size``, ``json.malformed``, and those of :meth:`read`.
        """
        member = self.members[name]
        if member.size > MAX_JSON:
            raise PackageError("json.size", f"{name!r} has {member.size} bytes; at most {MAX_JSON} are read.")
        self._take("json", member.size, name)
        content = self.read(member)
        self._take("values", sum(map(content.count, (b"[", b"{", b","))), name)
        try:
            return json.loads(content.decode("utf-8-sig"))
        except (ValueError, RecursionError) as error:
            cause = str(error)[:200]
            raise PackageError("json.malformed", f"{name!r} cannot be read as JSON: {cause}") from error

    def _take(self, what: str, amount: int, name: str) -> None:
        """Use up some of what a whole package may contain of it."""
        self._room[what] -= amount
        if self._room[what] < 0:
            rule, plural = _TOO_MUCH[what]
            raise PackageError(rule, f"With {name!r} the package has too many {plural}.")

    def packed(self, member: Member) -> bytes:
        """The member's bytes as they lie in the package, compressed and unchecked."""
        return self._content[member.start : member.start + member.packed]

    def digest(self, member: Member) -> bytes:
        """The SHA-256 of the member's content, which is never held as a whole.

        Raises:
            PackageError: ``zip.deflate``, ``zip.size``, ``zip.crc``.
        """
        if member.size <= _PIECE:
            return hashlib.sha256(self.read(member)).digest()
        hashing = hashlib.sha256()
        crc = 0
        size = 0
        for chunk in self._chunks(member):
            size += len(chunk)
            if size > member.size:
                break
            crc = zlib.crc32(chunk, crc)
            hashing.update(chunk)
        if size != member.size:
            raise PackageError("zip.size", f"{member.name!r} is not as large as the archive says.")
        if crc != member.crc:
            raise PackageError(
                "zip.crc", f"{member.name!r} does not match its checksum: the file is damaged."
            )
        return hashing.digest()

    def _chunks(self, member: Member) -> Iterator[bytes | memoryview]:
        view = memoryview(self._content)[member.start : member.start + member.packed]
        if member.method == _STORED:
            for position in range(0, len(view), _PIECE):
                yield view[position : position + _PIECE]
            return
        inflating = zlib.decompressobj(-zlib.MAX_WBITS)
        pending: bytes | memoryview = b""
        position = 0
        try:
            while not inflating.eof:
                if not pending:
                    pending = view[position : position + _PIECE]
                    position += len(pending)
                chunk = inflating.decompress(pending, _PIECE)
                if not chunk and not pending:
                    break  # nothing goes in and nothing comes out: the end is missing
                pending = inflating.unconsumed_tail
                yield chunk
        except zlib.error as error:
            raise PackageError(
                "zip.deflate", f"{member.name!r} cannot be inflated: the file is damaged."
            ) from error
        if not inflating.eof or inflating.unused_data or position < len(view):
            raise PackageError("zip.deflate", f"{member.name!r} cannot be inflated: the file is damaged.")


def pack(entries: Iterable[tuple[str, bytes | tuple[Archive, Member]]]) -> bytes:
    """A zip archive of (name, content), the same bytes every time: no times, no attributes.

    A member of another archive is taken over as it is, without inflating it.
    """
    body = bytearray()
    directory = bytearray()
    count = 0
    for name, content in entries:
        if isinstance(content, bytes):
            deflating = zlib.compressobj(6, zlib.DEFLATED, -zlib.MAX_WBITS)
            packed = deflating.compress(content) + deflating.flush()
            method, crc, size = _DEFLATED, zlib.crc32(content), len(content)
        else:
            archive, member = content
            packed = archive.packed(member)
            method, crc, size = member.method, member.crc, member.size
        raw = name.encode()
        flags = 0 if name.isascii() else _UTF8_NAME
        # 20 is the zip version 2.0; 33 is 1 January 1980, the earliest date that there is.
        common = (flags, method, 0, 33, crc, len(packed), size, len(raw), 0)
        directory += _CENTRAL.pack(b"PK\x01\x02", 20, 20, *common, 0, 0, 0, 0, len(body)) + raw
        body += _LOCAL.pack(b"PK\x03\x04", 20, *common) + raw + packed
        count += 1
    end = _END.pack(b"PK\x05\x06", 0, 0, count, count, len(directory), len(body), 0)
    return bytes(body + directory + end)


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def _inflate(packed: bytes, member: Member) -> bytes:
    inflating = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        content = inflating.decompress(packed, member.size + 1)
    except zlib.error as error:
        raise PackageError(
            "zip.deflate", f"{member.name!r} cannot be inflated: the file is damaged."
        ) from error
    if len(content) != member.size:
        raise PackageError("zip.size", f"{member.name!r} is not as large as the archive says.")
    if not inflating.eof or inflating.unused_data or inflating.unconsumed_tail:
        raise PackageError("zip.deflate", f"{member.name!r} cannot be inflated: the file is damaged.")
    return content


def _find_end(content: bytes | mmap.mmap) -> int | None:
    """Where the one end record begins, or None where there is none at all."""
    lowest = max(0, len(content) - 22 - 0xFFFF)
    at = content.rfind(b"PK\x05\x06", lowest)
    last = at
    while at >= 0:
        if at + 22 <= len(content):
            length = int.from_bytes(content[at + 20 : at + 22], "little")
            if at + 22 + length == len(content):
                return at
        at = content.rfind(b"PK\x05\x06", lowest, at)
    if last >= 0 and last + 22 <= len(content) and content[:2] == b"PK":
        length = int.from_bytes(content[last + 20 : last + 22], "little")
        surplus = len(content) - last - 22 - length
        if surplus > 0:
            raise PackageError("zip.trailing", f"{surplus} byte(s) follow the end of the archive.")
    return None


def _no_archive(whole: bytes | mmap.mmap) -> PackageError:
    """What a file is that has no zip end record."""
    content = whole[:1024]
    if not content:
        return PackageError("package.empty", "The file is empty.")
    if content.startswith(b"version https://git-lfs"):
        size = re.search(rb"\nsize (\d{1,15})\s", content)
        of = f" for a file of {int(size[1])} bytes" if size else ""
        return PackageError(
            "package.git_lfs_pointer", f"This is a Git LFS pointer{of}, not the package itself."
        )
    if content.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return PackageError("zip.truncated", "The end of the archive is missing: the file was cut off.")
    start = content.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<!doctype html", b"<html")):
        return PackageError("package.web_page", "This is a web page (perhaps a sign-in page), not a package.")
    for signature, what in _SIGNATURES:
        if content.startswith(signature):
            return PackageError("package.not_zip", f"This is {what}, not a zip archive.")
    if start.startswith(b"<"):
        return PackageError("package.not_zip", "This is an XML file, not a zip archive.")
    return PackageError("package.not_zip", "This is not a zip archive.")


_SIGNATURES: Final = (
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive"),
    (b"Rar!", "a RAR archive"),
    (b"\x1f\x8b", "a gzip file"),
    (b"MSCF", "a cabinet file"),
    (b"MZ", "a Windows program"),
    (b"%PDF", "a PDF document"),
    (b"{", "a JSON file"),
)


def _checked_name(raw: bytes, flags: int) -> str:
    r"""A member's name with ``/`` between its parts.

    A name that uses ``\`` throughout is taken as a path of a Windows tool (one of 679 real packages has
    them); one that mixes both is refused, since programs disagree about it.
    """
    try:
        name = raw.decode("utf-8" if flags & _UTF8_NAME else "cp437")
    except UnicodeDecodeError as error:
        raise PackageError("zip.name", f"The name {raw!r} is not valid UTF-8.") from error
    if "\\" in name:
        if "/" in name:
            raise PackageError("zip.name", f"The name {name!r} mixes / and \\.")
        name = name.replace("\\", "/")
    if not name or len(name) > 1024 or _FORBIDDEN_IN_NAMES.search(name):
        raise PackageError("zip.name", f"The name {name[:200]!r} is not a valid file name.")
    parts = name.removesuffix("/").split("/")
    if len(parts) > MAX_DEPTH:
        raise PackageError("zip.name", f"The name {name[:200]!r} has more than {MAX_DEPTH} folders.")
    for part in parts:
        if not part or part[-1] in ". " or part[0] == " ":
            raise PackageError("zip.name", f"The name {name!r} does not stay inside the package.")
        if part.partition(".")[0].rstrip(" ").upper() in _RESERVED:
            raise PackageError("zip.reserved_name", f"The name {name!r} contains a reserved device name.")
    return name


def _check_extra(extra: bytes, name: str) -> None:
    """Refuse the extra fields that would give an entry another size or name."""
    position = 0
    while position + 4 <= len(extra):
        kind = int.from_bytes(extra[position : position + 2], "little")
        length = int.from_bytes(extra[position + 2 : position + 4], "little")
        if kind == _ZIP64_EXTRA:
            raise PackageError("zip.zip64", f"{name!r} uses zip64 records.")
        if kind == _AES_EXTRA:
            raise PackageError("zip.encrypted", f"{name!r} is encrypted.")
        if kind == _UNICODE_PATH_EXTRA:
            raise PackageError("zip.extra", f"{name!r} has a second name.")
        position += 4 + length
    if position > len(extra):
        raise PackageError("zip.extra", f"{name!r} has a damaged extra field.")


_TOO_MUCH: Final = {
    "xml": ("xml.size", "bytes of XML"),
    "nodes": ("xml.nodes", "XML elements and attributes"),
    "json": ("json.size", "bytes of JSON"),
    "values": ("json.size", "JSON values"),
}
_DECLARATION: Final = re.compile(rb"""<\?xml\s[^>]{0,200}?encoding\s*=\s*["']([^"']{0,40})["']""")


def pairs(element: etree._Element) -> list[tuple[str, str]]:
    """An element's attributes; lxml takes the square of their number in time.

    Raises:
        PackageError: ``xml.nodes`` for more than 64 of them.
    """
    if len(element.attrib) > 64:
        raise PackageError("xml.nodes", f"<{element.tag}> has {len(element.attrib)} attributes.")
    return [(str(name), str(value)) for name, value in element.items()]


def _has_doctype(content: bytes) -> bool:
    """Whether anything that starts with ``<!`` and is no comment stands before the root element.

    It looks at the prolog only: what looks like a DOCTYPE in text further on (a web resource, an email
    template in CDATA) is none.
    """
    at = content.find(b"<")
    while at >= 0:
        if content.startswith(b"<!--", at):
            at = content.find(b"-->", at + 4)
        elif content.startswith(b"<?", at):
            at = content.find(b"?>", at + 2)
        else:
            return content.startswith(b"<!", at)
        if at >= 0:
            at = content.find(b"<", at)
    return False
