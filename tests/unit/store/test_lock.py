"""One host at a time on one folder, and the second one is told who has it."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pipelinehost_server.store import Store, StoreLocked

_HOLDING = """
import asyncio, sys
from pathlib import Path
from pipelinehost_server.store import Store

async def main():
    await Store(Path(sys.argv[1]), "127.0.0.1:50051").open()
    print("open", flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""


async def test_a_second_process_is_told_who_holds_the_folder(tmp_path: Path) -> None:
    holder = subprocess.Popen(  # noqa: ASYNC220 - nothing else runs on this loop
        [sys.executable, "-c", _HOLDING, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    try:
        assert holder.stdout.readline() == "open\n"
        second = Store(tmp_path)
        with pytest.raises(StoreLocked) as refused:
            await second.open()
        assert refused.value.holder["pid"] == str(holder.pid)
        assert refused.value.holder["address"] == "127.0.0.1:50051"
        assert refused.value.holder["since"].startswith("20")
        for words in (str(tmp_path), f"pid {holder.pid}", "address 127.0.0.1:50051", "since 20"):
            assert words in str(refused.value)
    finally:
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait(10)
        holder.stdout.close()
    # The system drops the lock of a host that was killed.
    third = Store(tmp_path)
    await third.open()
    await third.close()


async def test_a_second_store_in_the_same_process_is_refused_too(store: Store, tmp_path: Path) -> None:
    with pytest.raises(StoreLocked, match=f"pid {os.getpid()}"):
        await Store(tmp_path).open()
    assert await store.write(lambda transaction: 1) == 1  # the first one is unharmed


async def test_a_holder_that_has_not_written_its_name_yet(store: Store, tmp_path: Path) -> None:
    (tmp_path / "lock").write_text("")
    with pytest.raises(StoreLocked, match="unknown holder"):
        await Store(tmp_path).open()


async def test_nobody_else_may_read_what_is_kept(tmp_path: Path) -> None:
    folder = tmp_path / "new"
    store = Store(folder)
    await store.open()
    await store.write(lambda tx: tx.put_secret("x", b"y"))
    modes = {file.name: file.stat().st_mode & 0o777 for file in folder.iterdir()}
    await store.close()
    assert folder.stat().st_mode & 0o777 == 0o700
    assert set(modes.values()) == {0o600}
    assert {"lock", "pipelinehost.db", "pipelinehost.db-wal"} <= set(modes)
