"""Whose an environment is: the mark that its host leaves in it, and how two hosts agree on one.

A linked environment belongs to one host. The first host that reaches it leaves a mark; who finds another
host's mark sends nothing. Taking over is overwriting the mark, and the host that lost the environment sees
that at its next contact. The mark decides, never a host's own record: after a crash between the two, the next
look puts the record right.
"""

from __future__ import annotations

import json
import socket
from dataclasses import dataclass
from datetime import UTC, datetime

from pipelinehost_dataverse.webapi import AnswerLost, Mark, Refused, WebApi
from pipelinehost_dataverse.webapi.errors import plain

_WORDS = 100
"""Most characters that are told of what a mark says."""


@dataclass(frozen=True, slots=True)
class Claim:
    """What a mark says."""

    mark: Mark
    store: str
    """Identity of the host's store."""
    host: str
    """What people call the host: the name of its machine."""
    time: str

    @property
    def words(self) -> str:
        """Whose it is, as people read it."""
        return f"the host {self.host or 'of an unknown machine'} (store {self.store or 'unknown'})"


async def owner(api: WebApi) -> Claim | None:
    """Whose an environment is; None where it is nobody's.

    Raises:
        DataverseError: it cannot be asked.
    """
    return next(iter(await _look(api)), None)


async def claim(api: WebApi, store: str) -> Claim:
    """Leave our mark where there is none; gives whose the environment is afterwards.

    The environment keeps the name of the mark unique, which decides a race. Should it not, the oldest mark
    counts, and whoever has another one takes it away at its next look: at the latest before an import.

    Raises:
        DataverseError: it cannot be asked, or does not let us write.
    """
    found = await _look(api)
    if not found:
        failure: Refused | AnswerLost | None = None
        try:
            await api.leave_mark(_text(store))
        except (Refused, AnswerLost) as error:
            failure = error  # somebody was faster; or ours is there, and only the answer was lost
        found = await _look(api)
        if not found:
            raise failure or AnswerLost("the mark that says whose it is was written, and is not there")
    for late in found[1:]:
        if late.store == store:
            await api.remove_mark(late.mark)
    return found[0]


async def take(api: WebApi, store: str) -> Claim | None:
    """Make an environment ours; gives whose it was, None where it was nobody's.

    Raises:
        DataverseError: it cannot be asked, or does not let us write.
    """
    before = await owner(api)
    found = before or await claim(api, store)
    if found.store != store:
        await api.change_mark(found.mark, _text(store))
        return found  # also where another host was faster just now
    return before


async def release(api: WebApi, store: str) -> None:
    """Take our mark away, if there is one; that of another host stays.

    Raises:
        DataverseError: it cannot be asked, or does not let us write.
    """
    for found in await _look(api):
        if found.store == store:
            await api.remove_mark(found.mark)


async def _look(api: WebApi) -> list[Claim]:
    """All marks, the one that counts first."""
    return sorted(map(_read, await api.marks()), key=lambda c: (c.time, c.store, c.mark.id))


def _text(store: str) -> str:
    told = {"store": store, "host": socket.gethostname()[:_WORDS], "time": datetime.now(UTC).isoformat()}
    return json.dumps(told)


def _read(mark: Mark) -> Claim:
    """A mark that cannot be read is somebody else's."""
    try:
        told = json.loads(mark.text)
        store, host, time = (plain(str(told.get(key, "")), _WORDS) for key in ("store", "host", "time"))
    except (ValueError, AttributeError, RecursionError):
        store = host = time = ""
    return Claim(mark, store, host, time)
