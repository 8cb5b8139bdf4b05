"""Only one dispatcher at a time: a lock that the system takes back the moment its holder dies."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from sqlalchemy import Connection, text
from sqlalchemy.exc import SQLAlchemyError

from app.db import Database

_KEY = 0x0A11_EAD5  # of the advisory lock, anybody's but ours


class DispatcherLock:
    """A file lock beside a SQLite database, an advisory lock of the session in PostgreSQL."""

    def __init__(self, db: Database, folder: Path) -> None:
        self._db = db
        self._path = folder / "worker.lock"
        self._file: int | None = None
        self._connection: Connection | None = None

    def acquire(self) -> bool:
        """Whether it is ours now."""
        if self._db.engine.dialect.name == "postgresql":
            return self._acquire_session()
        handle = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            return False
        self._file = handle
        return True

    def held(self) -> bool:
        """Whether it still is: a session with a database can break."""
        if self._connection is None:
            return self._file is not None
        try:
            self._connection.execute(text("SELECT 1"))
        except SQLAlchemyError:
            return False
        return True

    def release(self) -> None:
        """Lets the next one in."""
        if self._file is not None:
            os.close(self._file)
            self._file = None
        if self._connection is not None:
            self._connection.invalidate()  # closes the session for good, and the lock with it
            self._connection.close()
            self._connection = None

    def _acquire_session(self) -> bool:
        connection = self._db.engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        if connection.scalar(text("SELECT pg_try_advisory_lock(:key)"), {"key": _KEY}):
            self._connection = connection
            return True
        connection.close()
        return False
