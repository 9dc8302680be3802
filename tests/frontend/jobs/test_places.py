from __future__ import annotations

import sqlite3
import stat
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING

import psutil
import pytest
from pydantic import ValidationError

from frontend.jobs import places
from frontend.jobs.driver import StoreRefusedError
from frontend.jobs.statements import SCHEMA_VERSION
from frontend.settings import Settings
from tests.frontend.jobs.samples import created

if TYPE_CHECKING:
    from pathlib import Path

    from tests.fakes.postgres import PostgresServer


async def test_the_folder_is_the_one_that_is_set_or_the_user_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert places.state_folder(Settings(state_folder=tmp_path)) == tmp_path
    assert places.state_folder(Settings()) == tmp_path / "xdg" / "artmancer"
    monkeypatch.setenv("XDG_STATE_HOME", "")
    assert places.state_folder(Settings()) == tmp_path / "home/.local/state/artmancer"


async def test_a_user_without_a_home_has_to_name_the_folder(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("XDG_STATE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", {}.__getitem__)  # a container's user has no line there
    with pytest.raises(StoreRefusedError, match="no home is known for ~: set ARTMANCER_STATE_F"):
        await places.try_out(Settings())


async def test_pictures_are_their_owner_s_alone(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    await places.try_out(Settings(state_folder=folder))
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()} == {0o600}


async def test_a_network_file_system_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mounts = [SimpleNamespace(mountpoint="/", fstype="ext4")]
    monkeypatch.setattr(psutil, "disk_partitions", lambda **_: mounts)
    folder = tmp_path / "mounted" / "not yet there"
    places.check(folder)
    mounts.append(SimpleNamespace(mountpoint=str(tmp_path / "mounted"), fstype="nfs4"))
    with pytest.raises(StoreRefusedError, match=r"\(nfs4\).*ARTMANCER_STATE_FOLDER"):
        await places.try_out(Settings(state_folder=folder))
    assert not folder.exists()
    places.check(tmp_path / "beside")


async def test_what_a_newer_program_has_written_is_refused(tmp_path: Path) -> None:
    settings = Settings(state_folder=tmp_path)
    await places.try_out(settings)
    with sqlite3.connect(tmp_path / places.FILE) as file:
        file.execute("UPDATE schema_version SET version = version + 1")
    file.close()
    with pytest.raises(StoreRefusedError, match=f"newer.*schema {SCHEMA_VERSION + 1}"):
        await places.try_out(settings)


async def test_a_url_names_a_database_of_postgresql(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    settings = Settings(store_url=postgres.new_database(), state_folder=tmp_path)
    store = await places.open_store(settings)
    assert (await store.view()).waiting == []
    await store.close()
    assert not (tmp_path / places.FILE).exists()


async def test_a_url_needs_what_talks_to_postgresql(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "frontend.jobs.postgres", raising=False)
    monkeypatch.setitem(sys.modules, "asyncpg", None)
    with pytest.raises(StoreRefusedError, match=r"asyncpg.*extra `postgres`"):
        await places.try_out(Settings(store_url="postgresql://127.0.0.1/jobs"))


def test_a_url_of_another_database_is_refused() -> None:
    with pytest.raises(ValidationError, match="must start with postgresql://"):
        Settings(store_url="mysql://127.0.0.1/jobs")
    with pytest.raises(ValidationError) as refused:
        Settings(store_url="postgres://me:secret@127.0.0.1/jobs")
    assert "secret" not in str(refused.value)
    assert "secret" not in repr(Settings(store_url="postgresql://me:secret@127.0.0.1/jobs"))


async def test_what_is_no_store_is_refused(tmp_path: Path) -> None:
    (tmp_path / places.FILE).write_bytes(b"a file of another program" * 100)
    with pytest.raises(StoreRefusedError, match=f"{places.FILE}.*not a database.*move it away"):
        await places.try_out(Settings(state_folder=tmp_path))
    (tmp_path / "file").touch()
    with pytest.raises(StoreRefusedError, match=r"file.*File exists.*ARTMANCER_STATE_FOLDER"):
        await places.try_out(Settings(state_folder=tmp_path / "file"))


async def test_a_store_with_damaged_pages_is_refused(tmp_path: Path) -> None:
    settings = Settings(state_folder=tmp_path)
    store = await places.open_store(settings)
    for number in range(20):
        await created(store, str(number), image=bytes(10**5))
    await store.close()
    file = tmp_path / places.FILE
    data = bytearray(file.read_bytes())
    for at in range(3 * 4096, len(data), 2 * 4096):
        data[at : at + 4096] = b"\xff" * 4096
    file.write_bytes(data)
    with pytest.raises(StoreRefusedError, match=f"{places.FILE}.*malformed.*move it away"):
        await places.try_out(settings)


async def test_a_database_that_can_only_be_read_is_refused(postgres: PostgresServer) -> None:
    url = postgres.new_database()
    await places.try_out(Settings(store_url=url))
    settings = Settings(store_url=f"{url}&default_transaction_read_only=on")  # as a standby is
    with pytest.raises(StoreRefusedError, match=r"ARTMANCER_STORE_URL: .*read-only transaction"):
        await places.try_out(settings)
