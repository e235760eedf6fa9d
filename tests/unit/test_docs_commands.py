"""Every command line in the documents and in the programs' own help is one that the programs take."""

from __future__ import annotations

import io
import re
import shlex
import sys
from argparse import ArgumentParser, _SubParsersAction
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

import click
import pytest

from pipelinehost.cli import commands
from pipelinehost.cli.commands import session
from pipelinehost.cli.failure import USAGE
from pipelinehost_dataverse.emulator import __main__ as emulator
from pipelinehost_server import __main__ as server

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]
PARSERS = {"pipelinehost-server": server._parser, "pipelinehost-emulator": emulator._parser}
PROGRAM = re.compile(r"pipelinehost(-server|-emulator)? (?=\S)")
CONFIG = "environments:\n  - name: qa\n    kind: target\n"
CONTENTS = {
    ".json": "{}",
    ".jsonl": "{}",
    ".yaml": CONFIG,
    ".zip": "package",
    ".pem": "x",
    ".secret": "x",
    ".token": "x",
}


def in_markdown(text: str) -> Iterator[str]:
    """The lines of code blocks, and what stands in code spans."""
    block = re.compile(r"^```\w*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
    for found in block.findall(text):
        yield from in_help(found)
    # A span that only names a command need not be complete.
    for span in re.findall(r"`([^`\n]+)`", block.sub("", text)):
        named = PROGRAM.match(span) and not re.search(r"[^a-z -]|--", span)
        yield f"{span} --help" if named else span


def in_help(text: str) -> Iterator[str]:
    yield from (line.strip() for line in re.sub(r"\\\n\s*", "", text).splitlines())


def calls(lines: Iterator[str]) -> Iterator[str]:
    """The calls of our programs in lines of shell."""
    for line in lines:
        for part in re.split(r" \| | && ", line):
            if PROGRAM.match(part):
                # Brackets hold what may be left out; a redirection and a remark are the shell's.
                yield re.sub(r"[\[\]]| > .*| #.*", "", part)


def every_command(group: click.Group) -> Iterator[click.Command]:
    yield group
    for command in group.commands.values():
        yield from every_command(command) if isinstance(command, click.Group) else (command,)


def helps_of(parser: ArgumentParser) -> Iterator[str]:
    yield parser.format_help()
    for action in parser._actions:
        if isinstance(action, _SubParsersAction):
            for inner in action.choices.values():
                yield from helps_of(inner)


def every_call() -> Iterator[tuple[str, str]]:
    for document in sorted(DOCUMENTS):
        for call in calls(in_markdown(document.read_text(encoding="utf-8"))):
            yield document.name, call
    for command in every_command(commands.cli):
        for call in calls(in_help(command.help or "")):
            yield f"{command.name} --help", call
    for name, parser in PARSERS.items():
        for text in helps_of(parser()):
            for call in calls(in_help(text)):
                yield f"{name} --help", call


EVERY_CALL = sorted(set(every_call()))


def test_the_documents_are_read() -> None:
    places = [place for place, _ in EVERY_CALL]
    assert places.count("README.md") >= 8
    assert places.count("operations.md") >= 5
    assert places.count("deploy --help") == 6
    assert "pipelinehost-server --help" in places


class Asked(Exception):
    """The command line was taken, and the host is asked."""


class Nobody:
    def __init__(self, *_: object, **__: object) -> None:
        pass

    def __getattr__(self, name: str) -> NoReturn:
        raise Asked

    def close(self) -> None:
        pass


@pytest.mark.parametrize(("place", "call"), EVERY_CALL, ids=[f"{p}: {c}" for p, c in EVERY_CALL])
def test_a_documented_command_line_is_taken(
    place: str,
    call: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    program, *arguments = shlex.split(call)
    if program in PARSERS:
        assert code_of(PARSERS[program](), arguments) == 0, f"{place}: {call}\n{capsys.readouterr().err}"
        return
    monkeypatch.chdir(tmp_path)
    for option, argument in zip(["", *arguments], arguments, strict=False):
        if option != "-o" and (content := CONTENTS.get(Path(argument).suffix)) is not None:
            Path(argument).write_text(content, encoding="utf-8")
    monkeypatch.setattr(sys, "stdin", io.StringIO(CONFIG))
    monkeypatch.setattr(sys, "argv", [program, *arguments])
    monkeypatch.setattr(session, "Client", Nobody)
    with suppress(Asked):
        assert commands.run() != USAGE, f"{place}: {call}\n{capsys.readouterr().err}"


def code_of(parser: ArgumentParser, arguments: list[str]) -> object:
    try:
        parser.parse_args(arguments)
    except SystemExit as ended:
        return ended.code
    return 0


def test_every_option_that_a_document_names_is_there() -> None:
    helps = [text for parser in PARSERS.values() for text in helps_of(parser())]
    known = {o for c in every_command(commands.cli) for p in c.params for o in (*p.opts, *p.secondary_opts)}
    known |= set(re.findall(r"--[a-z-]+", "".join(helps)))
    for document in DOCUMENTS:
        named = set(re.findall(r"`(--[a-z-]+)[^`\n]*`", document.read_text(encoding="utf-8")))
        assert named <= known, f"{document.name} names {named - known}"
