"""Database and blobs."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import text

from app.blobs import BlobStore
from app.db import Database
from app.services.errors import NotFoundError
from app.tables import Base
from model.errors import ConfigError


def test_migrations_make_the_tables_that_the_code_expects(tmp_path: Path) -> None:
    db = Database(f"sqlite:///{tmp_path / 'a.sqlite3'}")
    db.migrate()
    db.migrate()
    with db.engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []
        found = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "foreign_keys", "synchronous")
        }
    assert found == {"journal_mode": "wal", "foreign_keys": 1, "synchronous": 2}
    db.close()


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    db = Database(f"sqlite:///{tmp_path / 'a.sqlite3'}")
    with db.write() as session:
        session.execute(text("CREATE TABLE t (x INTEGER)"))
    with pytest.raises(RuntimeError), db.write() as session:
        session.execute(text("INSERT INTO t VALUES (1)"))
        raise RuntimeError
    with db.read() as reader, db.write() as writer:  # neither waits for the other
        assert reader.execute(text("SELECT count(*) FROM t")).scalar() == 0
        writer.execute(text("INSERT INTO t VALUES (2)"))
    with db.read() as reader:
        assert reader.execute(text("SELECT count(*) FROM t")).scalar() == 1
    db.close()


def test_unusable_database_is_one_clear_error(tmp_path: Path) -> None:
    for url in ("nonsense", "nosuch://x/y", f"sqlite:///{tmp_path}"):
        with pytest.raises(ConfigError, match="OVERREAD_DATABASE_URL"):
            Database(url).migrate()


def test_blobs_are_named_by_their_content(tmp_path: Path) -> None:
    store = BlobStore(tmp_path / "blobs")
    digest = store.put(b"abc")
    assert digest == hashlib.sha256(b"abc").hexdigest() == store.put(b"abc")
    assert store.get(digest) == b"abc"
    assert len([path for path in (tmp_path / "blobs").rglob("*") if path.is_file()]) == 1
    with pytest.raises(NotFoundError):
        store.get("0" * 64)
    with pytest.raises(ValueError, match="SHA-256"):
        store.get("../../etc/passwd")
