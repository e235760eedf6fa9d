"""Writes the reference pages: api.md and errors.md from the protos, findings.md from the host's catalogues.

``make protos`` runs it.

Usage: python docs/generate.py FOLDER
"""

import importlib.resources
import re
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
    ServiceDescriptorProto,
)
from grpc_tools import protoc  # type: ignore[import-untyped]  # it has no types and no stubs

from pipelinehost import errors
from pipelinehost.v1.resources_pb2 import Finding
from pipelinehost_dataverse.solution import RULES
from pipelinehost_server.deployment.findings import CATALOGUE

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ".pipelinehost.v1."
FILES = ("pipeline_host", "artifacts", "resources", "errors")
"""In the order of the page: services first."""
GENERATED = "<!-- Written by `make protos` from the comments of the protos: change them there. -->\n"
SCALARS = {
    FieldDescriptorProto.TYPE_BOOL: "bool",
    FieldDescriptorProto.TYPE_BYTES: "bytes",
    FieldDescriptorProto.TYPE_INT32: "int32",
    FieldDescriptorProto.TYPE_INT64: "int64",
    FieldDescriptorProto.TYPE_STRING: "string",
}

# Numbers of the fields of descriptor.proto that lead to a comment.
MESSAGE, ENUM, SERVICE = 4, 5, 6
FIELD, NESTED, NESTED_ENUM, ONEOF, METHOD, VALUE = 2, 3, 4, 8, 2, 2


@dataclass(frozen=True)
class Commented:
    """A file of the API and its comments by path, as descriptor.proto numbers them."""

    file: FileDescriptorProto
    comments: dict[tuple[int, ...], str]

    def comment(self, *path: int) -> str:
        """The comment above the declaration at a path.

        Raises:
            KeyError: it has none; every declaration of the API is documented.
        """
        if path not in self.comments:
            raise KeyError(f"{self.file.name}: the declaration at {path} has no comment")
        return self.comments[path]


def read() -> list[Commented]:
    """The files of the API, compiled with their comments."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "api.binpb"
        code = protoc.main(
            [
                "protoc",
                f"-I{ROOT / 'protos'}",
                f"-I{importlib.resources.files('grpc_tools') / '_proto'}",
                "--include_source_info",
                f"--descriptor_set_out={out}",
                *(f"pipelinehost/v1/{name}.proto" for name in FILES),
            ]
        )
        if code:
            sys.exit(code)
        files = FileDescriptorSet.FromString(out.read_bytes()).file
    return [
        Commented(
            file,
            {
                tuple(location.path): " ".join(location.leading_comments.split())
                for location in file.source_code_info.location
                if location.leading_comments
            },
        )
        for file in files
    ]


def link(type_name: str) -> str:
    """A message or an enum of the API as a link to its heading, another one by its bare name."""
    if not type_name.startswith(PACKAGE):
        return f"`{type_name.rsplit('.', 1)[-1]}`"
    name = type_name.removeprefix(PACKAGE)
    return f"[{name}](#{name.lower().replace('.', '')})"


def table(*header: str, rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    """A table in Markdown."""
    yield "| " + " | ".join(header) + " |"
    yield "|" + " --- |" * len(header)
    for row in rows:
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |"
    yield ""


def service_section(source: Commented, index: int, service: ServiceDescriptorProto) -> Iterator[str]:
    """A service with its methods."""
    yield f"## Service {service.name}\n"
    yield source.comment(SERVICE, index) + "\n"
    yield from table(
        "Method",
        "takes",
        "answers with",
        "",
        rows=(
            (
                f"`{method.name}`",
                ("a stream of " if method.client_streaming else "") + link(method.input_type),
                ("a stream of " if method.server_streaming else "") + link(method.output_type),
                source.comment(SERVICE, index, METHOD, at),
            )
            for at, method in enumerate(service.method)
        ),
    )


def message_sections(
    source: Commented, path: tuple[int, ...], name: str, message: DescriptorProto
) -> Iterator[str]:
    """A message with its fields, then the messages and enums inside it."""
    yield f"### {name}\n"
    yield source.comment(*path) + "\n"
    entries = {
        f"{PACKAGE}{name}.{nested.name}": nested for nested in message.nested_type if nested.options.map_entry
    }

    def type_of(field: FieldDescriptorProto) -> str:
        if field.type_name in entries:
            key, value = entries[field.type_name].field
            return f"map of {type_of(key)} to {type_of(value)}"
        one = link(field.type_name) if field.type_name else f"`{SCALARS[field.type]}`"
        return f"list of {one}" if field.label == FieldDescriptorProto.LABEL_REPEATED else one

    def meaning(at: int, field: FieldDescriptorProto) -> str:
        text = source.comment(*path, FIELD, at)
        if not field.HasField("oneof_index"):
            return text
        oneof = message.oneof_decl[field.oneof_index].name
        return f"*{oneof}:* {text}"

    yield from (
        f"*{oneof.name}* is one of several fields: {source.comment(*path, ONEOF, at)}\n"
        for at, oneof in enumerate(message.oneof_decl)
    )
    if message.field:
        yield from table(
            "Field",
            "Type",
            "",
            rows=(
                (f"`{field.name}`", type_of(field), meaning(at, field))
                for at, field in enumerate(message.field)
            ),
        )
    for at, nested in enumerate(message.nested_type):
        if not nested.options.map_entry:
            yield from message_sections(source, (*path, NESTED, at), f"{name}.{nested.name}", nested)
    for at, enum in enumerate(message.enum_type):
        yield from enum_section(source, (*path, NESTED_ENUM, at), f"{name}.{enum.name}", enum)


def enum_section(
    source: Commented, path: tuple[int, ...], name: str, enum: EnumDescriptorProto
) -> Iterator[str]:
    """An enum with its values."""
    yield f"### {name}\n"
    yield source.comment(*path) + "\n"
    yield from table(
        "Value",
        "",
        rows=((f"`{value.name}`", source.comment(*path, VALUE, at)) for at, value in enumerate(enum.value)),
    )


def api_page(sources: list[Commented]) -> str:
    """The services, and every message and enum that they use."""
    lines = [
        GENERATED,
        "# API\n",
        "Package `pipelinehost.v1`.\n",
        "What the words mean: [glossary](glossary.md). Why a call may be refused: [errors](errors.md).\n",
    ]
    for source in sources:
        for index, service in enumerate(source.file.service):
            lines += service_section(source, index, service)
    lines.append("## Messages\n")
    for source in sources:
        if source.file.name.endswith("/errors.proto"):
            continue
        for index, message in enumerate(source.file.message_type):
            lines += message_sections(source, (MESSAGE, index), message.name, message)
        for index, enum in enumerate(source.file.enum_type):
            lines += enum_section(source, (ENUM, index), enum.name, enum)
    return "\n".join(lines).rstrip() + "\n"


def errors_page(sources: list[Commented]) -> str:
    """Every reason, with its status code and the exception that the Python client raises.

    Raises:
        ValueError: a reason's comment does not begin with a status code that an exception stands for.
    """
    (source,) = (source for source in sources if source.file.name.endswith("/errors.proto"))
    (reasons,) = source.file.enum_type

    def row(at: int, name: str) -> tuple[str, ...]:
        found = re.fullmatch(r"([A-Z_]+): (.*)", source.comment(ENUM, 0, VALUE, at))
        exception = found[1].title().replace("_", "") if found else ""
        if found is None or not hasattr(errors, exception):
            raise ValueError(f"the comment of {name} must begin with the status code that it travels with")
        return (
            f"`{name.removeprefix('ERROR_REASON_')}`",
            f"`{found[1]}`",
            f"`{exception}`",
            found[2][0].upper() + found[2][1:],
        )

    lines = [GENERATED, "# Errors\n", source.comment(ENUM, 0) + "\n"]
    lines += table(
        "Reason",
        "gRPC status",
        "Exception of the Python client",
        "",
        rows=(row(at, value.name) for at, value in enumerate(reasons.value) if value.number),
    )
    return "\n".join(lines).rstrip() + "\n"


def findings_page() -> str:
    """Every finding of validation and imports, then every rule that a package can break."""
    # Facts that bring their own connecting words, or nothing.
    said = {"remark": "", "candidates": "", "origin": "", "similar": "", "loss": "", "verb": "needs"}

    def shown(template: str) -> str:
        if template == "{remedy}":
            return "Said with the finding: it depends on the case."
        return re.sub(r"\{(\w+)\}", lambda fact: said.get(fact[1], f"*{fact[1]}*"), template)

    lines = [
        "<!-- Written by `make protos` from the catalogues of the host: change them there. -->\n",
        "# Findings\n",
        "What validation and imports find, in the order of validation. Words in *italics* stand for names",
        "and values of the case at hand. An *error* stops the deployment before anything is imported; all",
        "errors come at once. When a deployment is validated that the host's own record forbids, the reasons",
        "on the page [errors](errors.md) appear as findings with the same codes.\n",
    ]
    lines += table(
        "Code",
        "Severity",
        "Cause",
        "Remedy",
        rows=(
            (
                f"`{code}`",
                Finding.Severity.Name(entry.severity).removeprefix("SEVERITY_").lower(),
                shown(entry.cause),
                shown(entry.remedy) + (" A retry can help." if entry.retryable else ""),
            )
            for code, entry in CATALOGUE.items()
        ),
    )
    lines += [
        "## Rules of packages\n",
        "`PACKAGE_INVALID` names one of these rules; the message says what the file really is.\n",
    ]
    lines += table("Rule", "Remedy", rows=((f"`{rule}`", shown(text)) for rule, text in RULES.items()))
    return "\n".join(lines).rstrip() + "\n"


def main(folder: Path) -> None:
    """Write the pages into a folder."""
    sources = sorted(read(), key=lambda source: FILES.index(Path(source.file.name).stem))
    (folder / "api.md").write_text(api_page(sources), encoding="utf-8")
    (folder / "errors.md").write_text(errors_page(sources), encoding="utf-8")
    (folder / "findings.md").write_text(findings_page(), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
