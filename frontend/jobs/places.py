"""Owns where the store of jobs lies, and refuses places where it would break."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from frontend.errors import StoreAwayError
from frontend.homes import expanded
from frontend.jobs.driver import StoreRefusedError, refused
from frontend.jobs.sql_store import SqlStore
from frontend.jobs.sqlite import SqliteDriver
from frontend.jobs.transactions import Bounds

if TYPE_CHECKING:
    from frontend.jobs.driver import Driver
    from frontend.settings import Settings

FILE = "jobs.db"
# SQLite's log lies in memory that processes share, which these do not offer between machines.
NETWORK_FILE_SYSTEMS = {
    *("nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "ncpfs", "9p", "ceph", "lustre", "glusterfs"),
    *("beegfs", "gpfs", "orangefs", "fuse.sshfs", "fuse.glusterfs", "fuse.ceph", "fuse.s3fs"),
}


async def open_store(settings: Settings) -> SqlStore:
    """Open the store that the settings name.

    Raises:
        StoreRefusedError: it cannot be used there.
    """
    driver: Driver
    if settings.store_url:
        driver = await _open_postgres(settings.store_url)
    else:
        driver = await asyncio.to_thread(_open_file, state_folder(settings))
    bounds = Bounds(settings.store_bytes, settings.max_queue_size)
    return SqlStore(driver, bounds, settings.result_ttl_s)


def _open_file(folder: Path) -> SqliteDriver:
    check(folder)
    return SqliteDriver(folder / FILE)


async def _open_postgres(url: str) -> Driver:
    try:
        # Not at the top: asyncpg is in the extra `postgres`, which a file of SQLite does not need.
        from frontend.jobs.postgres import PostgresDriver
    except ImportError as error:
        raise StoreRefusedError(
            "ARTMANCER_STORE_URL needs the package asyncpg: install the extra `postgres`"
        ) from error
    return await PostgresDriver.open(url)


async def try_out(settings: Settings) -> None:
    """Open the store once, so that a start that must fail fails at once.

    Raises:
        StoreRefusedError: it cannot be used.
    """
    store = await open_store(settings)
    try:
        await store.view()  # opening reads the first page of a file alone
        await store.beat(0)  # a standby can be read
    except StoreAwayError as error:
        if settings.store_url:
            raise StoreRefusedError(f"ARTMANCER_STORE_URL: {error.reason}") from error
        raise refused(state_folder(settings) / FILE, error.reason) from error
    finally:
        await store.close()


def state_folder(settings: Settings) -> Path:
    """Return the folder of what outlives a process.

    Raises:
        StoreRefusedError: none is named, and this user has no home.
    """
    if settings.state_folder is not None:
        return settings.state_folder
    try:
        home = expanded(Path(os.environ.get("XDG_STATE_HOME") or "~/.local/state"))
    except ValueError as error:
        raise StoreRefusedError(f"{error}: set ARTMANCER_STATE_FOLDER") from error
    return home / "artmancer"


def check(folder: Path) -> None:
    """Refuse a folder on a network file system.

    Raises:
        StoreRefusedError: it is on one.
    """
    if (kind := file_system(folder)) in NETWORK_FILE_SYSTEMS:
        raise StoreRefusedError(
            f"{folder} is on a network file system ({kind}), where the store of jobs would break: "
            "set ARTMANCER_STATE_FOLDER to a folder on a disk of this machine"
        )


def file_system(folder: Path) -> str:
    """Return the kind of file system on which a folder is, or will be made."""
    path = folder.resolve()
    mounts = {Path(each.mountpoint): each.fstype for each in psutil.disk_partitions(all=True)}
    return next((mounts[each] for each in (path, *path.parents) if each in mounts), "")
