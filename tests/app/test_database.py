"""The same promises on both databases: SQLite, and PostgreSQL where OVERREAD_TEST_DATABASE_URL names a server."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from fastapi.testclient import TestClient
from sqlalchemy import DateTime, column, func, inspect, make_url, select, table, text
from sqlalchemy.exc import DBAPIError, OperationalError

from app.db import MIGRATIONS, Database
from app.tables import Base, now
from model.errors import ConfigError
from tests.app.conftest import png_bytes

COUNTERS = table("counters", column("name"), column("value"), column("at", DateTime(timezone=True)))


@pytest.fixture
def db(database_url: str) -> Iterator[Database]:
    """An open database with one table of the test's own, and one row in it."""
    db = Database(database_url)
    with db.write() as session:
        session.execute(text("CREATE TABLE counters (name VARCHAR(10), value INTEGER, at TIMESTAMP WITH TIME ZONE)"))
        session.execute(COUNTERS.insert().values(name="a", value=0, at=now()))
    yield db
    db.close()


@pytest.fixture
def postgres(database_url: str) -> str:
    """The URL of an empty PostgreSQL database."""
    if make_url(database_url).get_backend_name() != "postgresql":
        pytest.skip("PostgreSQL alone: set OVERREAD_TEST_DATABASE_URL")
    return database_url


def at_once(*actions: Callable[[], object]) -> None:
    """Runs all of them in threads that start together; raises what the first of them raised."""
    gate = threading.Barrier(len(actions))
    failed: list[BaseException] = []

    def run(action: Callable[[], object]) -> None:
        gate.wait()
        try:
            action()
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=run, args=(action,)) for action in actions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]


def test_migrations_go_up_down_and_up_again(database_url: str) -> None:
    db = Database(database_url)
    db.migrate()
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    with db.engine.begin() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []
        config.attributes["connection"] = connection
        command.downgrade(config, "base")
        assert set(inspect(connection).get_table_names()) <= {"alembic_version"}
    db.migrate()
    assert set(Base.metadata.tables) <= set(inspect(db.engine).get_table_names())
    db.close()


def test_servers_that_start_at_once_migrate_once(database_url: str) -> None:
    servers = [Database(database_url) for _ in range(4)]
    at_once(*(server.migrate for server in servers))
    with servers[0].read() as session:
        assert session.execute(text("SELECT count(*) FROM alembic_version")).scalar() == 1
    for server in servers:
        server.close()


def test_a_reader_sees_one_moment_and_holds_nobody_up(db: Database) -> None:
    query = select(COUNTERS.c.value)
    with db.read() as reader:
        before = reader.scalar(query)
        with db.write() as writer:
            writer.execute(COUNTERS.update().values(value=7))
        assert reader.scalar(query) == before == 0
    with db.read() as reader:
        assert reader.scalar(query) == 7


def test_writers_that_lock_what_they_read_lose_no_update(db: Database) -> None:
    def count_ten() -> None:
        for _ in range(10):
            with db.write() as session:
                value = session.scalar(select(COUNTERS.c.value).with_for_update())
                session.execute(COUNTERS.update().values(value=value + 1))

    at_once(*[count_ten] * 5)
    with db.read() as session:
        assert session.scalar(select(COUNTERS.c.value)) == 50


def test_a_failed_write_leaves_nothing(db: Database) -> None:
    with pytest.raises(RuntimeError), db.write() as session:
        session.execute(COUNTERS.insert().values(name="b", value=1, at=now()))
        raise RuntimeError
    with db.read() as session:
        assert session.scalar(select(func.count()).select_from(COUNTERS)) == 1


def test_times_are_utc_whatever_the_server_prefers(db: Database) -> None:
    given = now()
    with db.write() as session:
        session.execute(COUNTERS.update().values(at=given))
    with db.read() as session:
        assert session.scalar(select(COUNTERS.c.at)).replace(tzinfo=given.tzinfo) == given  # SQLite drops the zone


def test_what_a_file_is_called_never_breaks_its_storing(client: TestClient) -> None:
    names = ("a\x00b.png", "n" * 300 + ".png", "胸部 X 線 – “1”.png", "'; DROP TABLE instances; --.png", "🫁.png")
    for seed, name in enumerate(names):
        answer = client.post("/api/v1/predictions", files={"file": (name, png_bytes(seed), "image/png")})
        assert answer.status_code == 200, (name, answer.text)


def test_postgres_readers_cannot_write(db: Database, postgres: str) -> None:
    with pytest.raises(DBAPIError, match="read-only"), db.read() as session:
        session.execute(COUNTERS.update().values(value=1))


def test_postgres_connections_that_the_server_dropped_are_made_anew(db: Database, postgres: str) -> None:
    other = Database(postgres)
    with other.write() as session:
        ended = session.scalar(
            text(
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        )
    other.close()
    assert ended
    with db.read() as session:
        assert session.scalar(select(COUNTERS.c.value)) == 0


def test_postgres_queries_and_waits_end(db: Database, postgres: str) -> None:
    with db.read() as session:
        shown = {
            name: session.scalar(text(f"SHOW {name}"))
            for name in ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout", "timezone")
        }
    assert shown == {
        "statement_timeout": "30s",
        "lock_timeout": "10s",
        "idle_in_transaction_session_timeout": "1min",
        "timezone": "UTC",
    }
    hasty = make_url(postgres).update_query_dict({"options": "-c statement_timeout=50ms"})
    other = Database(hasty.render_as_string(hide_password=False))
    with pytest.raises(OperationalError, match="statement timeout"), other.read() as session:
        session.execute(text("SELECT pg_sleep(5)"))
    other.close()


def test_postgres_takes_the_url_as_people_write_it(postgres: str) -> None:
    for scheme in ("postgresql", "postgres"):
        db = Database(postgres.replace("postgresql+psycopg:", f"{scheme}:", 1))
        db.migrate()
        assert db.engine.dialect.driver == "psycopg"
        db.close()


def test_an_unreachable_server_is_one_line_without_the_password(tmp_path: Path) -> None:
    for url in (
        f"postgresql://overread:s3cret@/overread?host={tmp_path}",
        "mysql://overread:s3cret@localhost/overread",
    ):
        with pytest.raises(ConfigError, match="OVERREAD_DATABASE_URL") as caught:
            Database(url).migrate()
        assert "s3cret" not in str(caught.value)
        assert len(str(caught.value).splitlines()) == 1


@pytest.mark.skipif(not os.environ.get("OVERREAD_TEST_DATABASE_URL"), reason="PostgreSQL alone")
def test_the_tests_use_the_server_that_they_were_given(database_url: str) -> None:
    assert make_url(database_url).get_backend_name() == "postgresql"
