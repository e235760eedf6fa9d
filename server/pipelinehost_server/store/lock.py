"""One host at a time on one folder."""

from __future__ import annotations

import datetime as dt
import fcntl
import json
import os
from pathlib import Path


class StoreLocked(Exception):
    """Another host serves this folder; two would overwrite each other.

    Attributes:
        holder: what that host wrote about itself: ``pid``, ``address``, ``since``; empty if unreadable.
    """

    def __init__(self, folder: Path, holder: dict[str, str]) -> None:
        who = ", ".join(f"{key} {value}" for key, value in holder.items()) or "unknown holder"
        super().__init__(
            f"the folder {folder} is in use by another host ({who}): "
            "stop that one first, or choose another folder"
        )
        self.holder = holder


class FolderLock:
    """An exclusive lock on ``lock`` in the folder; the system drops it however the holder ends."""

    def __init__(self, folder: Path, address: str) -> None:
        self._folder = folder
        self._address = address
        self._file = -1

    def take(self) -> None:
        """Takes the lock and writes down who has it.

        Raises:
            StoreLocked: another holder has it.
        """
        path = self._folder / "lock"
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
            raise StoreLocked(self._folder, _holder(path)) from None
        since = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
        words = json.dumps({"pid": str(os.getpid()), "address": self._address, "since": since})
        os.ftruncate(file, 0)
        os.pwrite(file, words.encode(), 0)
        self._file = file

    def release(self) -> None:
        """Lets go of the lock, if it is held."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def _holder(path: Path) -> dict[str, str]:
    try:
        words = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):  # taken this very moment, and not written yet
        return {}
    return {key: str(value) for key, value in words.items() if value} if isinstance(words, dict) else {}
