"""The engine, its sessions, and the migrations.

SQLite: WAL so that readers never wait; every writer begins with BEGIN IMMEDIATE, so that two writers queue instead of
deadlocking; synchronous=FULL, because NORMAL can lose an acknowledged row when the power goes.

PostgreSQL: writers at READ COMMITTED, so that what is read after waiting for a lock is what its last holder left;
readers at REPEATABLE READ, so that a page sees one moment, as it does with SQLite. Whoever decides by what it has read
holds a lock (`with_for_update`, an advisory lock) or has a unique constraint behind it.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.exc import ArgumentError, IntegrityError, SQLAlchemyError
from sqlalchemy.orm import Session

from model.errors import ConfigError

MIGRATIONS = Path(__file__).parent / "migrations"
_BUSY_TIMEOUT_MS = 10_000
_T = TypeVar("_T")
_TRIES = 4
_POOL = {
    # A thread holds one connection, for the milliseconds of a transaction: more threads than connections wait in turn.
    # Who held one and asked for another could wait for ever: nobody does (tests/app/conftest.py watches).
    "pool_size": 10,
    "max_overflow": 30,
    "pool_timeout": 30,
}
_POSTGRES_POOL = {
    **_POOL,
    "pool_pre_ping": True,  # a server that was restarted costs a reconnection, not an error
    "pool_recycle": 1800,
}
_POSTGRES_OPTIONS = {  # of every session: no query, wait or forgotten transaction lasts for ever
    "timezone": "UTC",
    "statement_timeout": "30s",
    "lock_timeout": f"{_BUSY_TIMEOUT_MS}ms",
    "idle_in_transaction_session_timeout": "60s",
}
_MIGRATION_LOCK = 0x0A11_EADB  # any number, as long as nobody else locks by it


class Database:
    """Short transactions: `read()` never blocks a writer, `write()` commits on leaving and rolls back on an error."""

    def __init__(self, url: str) -> None:
        """Raises ConfigError `bad_database`, for a URL that names nothing that can be opened."""
        try:
            self.engine = _create_engine(url)
        except (SQLAlchemyError, ImportError) as error:
            raise _bad_database(error) from error
        readers: dict[str, Any] = {"read_only": True}
        if self.engine.dialect.name == "postgresql":
            readers = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
        self._reading = self.engine.execution_options(**readers)

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A session that only reads."""
        with Session(self._reading, expire_on_commit=False) as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """A session whose transaction is committed at the end of the block."""
        with Session(self.engine, expire_on_commit=False) as session, session.begin():
            yield session

    def write_again(self, act: Callable[[Session], _T]) -> _T:
        """Gives what `act` makes of such a session.

        Where somebody else stored the same between its look and its write, so that a unique constraint refused it, it
        looks again. Raises IntegrityError where that does not help.
        """
        for _ in range(_TRIES - 1):
            with suppress(IntegrityError), self.write() as session:
                return act(session)
        with self.write() as session:
            return act(session)

    def migrate(self, revision: str = "head") -> None:
        """Brings the schema to the newest version, or forward to that revision.

        Of several that start at once, one does it and the others wait. Raises ConfigError `bad_database`; nothing is
        changed then.
        """
        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS))
        try:
            with self._unbound() as connection, connection.begin():
                _lock_schema(connection)
                config.attributes["connection"] = connection
                command.upgrade(config, revision)
                if (
                    self.engine.dialect.name == "sqlite"
                    and connection.exec_driver_sql("PRAGMA foreign_key_check").all()
                ):
                    raise CommandError("a migration would leave rows that point nowhere")
        except (SQLAlchemyError, CommandError) as error:
            raise _bad_database(error) from error

    @contextmanager
    def _unbound(self) -> Iterator[Connection]:
        """A connection on which SQLite lets a table be replaced that others point to (sqlite.org/lang_altertable, 7).

        The pragma does nothing inside a transaction, so it comes before the first statement, to the driver itself.
        """
        with self.engine.connect() as connection:
            driver: Any = connection.connection.driver_connection
            if self.engine.dialect.name != "sqlite":
                yield connection
                return
            driver.execute("PRAGMA foreign_keys=OFF")
            try:
                yield connection
            finally:
                driver.execute("PRAGMA foreign_keys=ON")

    def close(self) -> None:
        """Gives the connections back."""
        self.engine.dispose()


def _create_engine(url: str) -> Engine:
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite":
        if parsed.database:
            Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
        engine = create_engine(parsed, **({} if parsed.database in (None, "", ":memory:") else _POOL))
        _configure_sqlite(engine)
        return engine
    if parsed.get_backend_name() in ("postgresql", "postgres"):
        return create_engine(_with_psycopg(parsed), connect_args=_postgres_arguments(parsed), **_POSTGRES_POOL)
    raise ArgumentError(f"{parsed.get_backend_name()} is neither sqlite nor postgresql")


def _with_psycopg(url: URL) -> URL:
    """As people write it, with the driver that the `postgres` extra brings."""
    return url.set(drivername="postgresql+psycopg") if url.drivername in ("postgresql", "postgres") else url


def _postgres_arguments(url: URL) -> dict[str, Any]:
    """What the URL does not say itself."""
    options = " ".join(f"-c {name}={value}" for name, value in _POSTGRES_OPTIONS.items())
    arguments = {"application_name": "overread", "connect_timeout": 10, "options": options}
    return {name: value for name, value in arguments.items() if name not in url.query}


def _lock_schema(connection: Connection) -> None:
    """Until the transaction ends. SQLite's writers queue anyway; PostgreSQL would let two create the same table."""
    if connection.dialect.name != "postgresql":
        return
    for timeout in ("statement_timeout", "lock_timeout"):  # a migration of a large table takes the time that it takes
        connection.execute(text(f"SET LOCAL {timeout} = 0"))
    connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATION_LOCK})


def _bad_database(error: Exception) -> ConfigError:
    reason = str(getattr(error, "orig", None) or error).splitlines()[0]
    return ConfigError(
        "bad_database", f"The database cannot be used ({reason}): see OVERREAD_DATABASE_URL and OVERREAD_DATA_DIR."
    )


def _begin_wal(cursor: sqlite3.Cursor) -> None:
    """While another process turns a new database to WAL, SQLite refuses at once, whatever the timeout says."""
    end = time.monotonic() + _BUSY_TIMEOUT_MS / 1000
    while True:
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError:
            if time.monotonic() > end:
                raise
            time.sleep(0.02)


def _configure_sqlite(engine: Engine) -> None:
    @event.listens_for(engine, "connect")
    def prepare(connection: Any, _record: object) -> None:
        connection.isolation_level = None  # the driver's own transactions would begin deferred
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout={_BUSY_TIMEOUT_MS}")
        _begin_wal(cursor)
        cursor.execute("PRAGMA foreign_keys=ON")
        cursor.execute("PRAGMA synchronous=FULL")
        cursor.close()

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        read_only = connection.get_execution_options().get("read_only", False)
        connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")
