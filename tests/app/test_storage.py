"""Database and blobs."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import select, text

from app.blobs import BlobStore
from app.db import Database
from app.services.errors import NotFoundError
from app.tables import AnalysisRow, Base, InstanceRow, StudyRow, StudyWordRow
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


def test_a_database_of_the_first_release_is_carried_over(tmp_path: Path) -> None:
    """What was on the worklist becomes a study at the same address; what was only predicted stays off it."""
    db = Database(f"sqlite:///{tmp_path / 'a.sqlite3'}")
    db.migrate("0001")
    with db.write() as session:
        for key, name, listed in (
            ("a" * 32, "Chest_01.png", 1),
            ("b" * 32, "synthetic sample 1.png", 1),
            ("c" * 32, "x", 0),
        ):
            session.execute(
                text(
                    "INSERT INTO instances VALUES (:id, :sha, :name, 'PNG', 9, 64, 64, '[]', :sha, "
                    "'2026-11-01 10:00:00.000000', :listed)"
                ),
                {"id": key, "sha": key * 2, "name": name, "listed": listed},
            )
        session.execute(
            text(
                "INSERT INTO analyses VALUES ('d', :id, 'clean', 'w', 'c', '2026-11-01 10:00:00.000000', '{}', x'00')"
            ),
            {"id": "a" * 32},
        )
    db.migrate()
    with db.read() as session:
        studies = {row.id: row for row in session.scalars(select(StudyRow))}
        assert {key: (row.title, row.source, row.status) for key, row in studies.items()} == {
            "a" * 32: ("Chest_01.png", "upload", "unread"),
            "b" * 32: ("synthetic sample 1.png", "sample", "unread"),
        }
        instances = {row.id: (row.study_id, row.predicted) for row in session.scalars(select(InstanceRow))}
        assert instances == {key: (None if key[0] == "c" else key, True) for key in ("a" * 32, "b" * 32, "c" * 32)}
        assert session.scalars(select(AnalysisRow.id)).all() == ["d"]
        found = session.scalars(select(StudyWordRow.word).where(StudyWordRow.study_id == "a" * 32))
        assert set(found) == {"chest_01.png", "chest", "01", "png", "a" * 32}
        assert studies["a" * 32].instances[0].thumbnail_sha256 == "a" * 64
    with db.engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []
        assert connection.exec_driver_sql("PRAGMA foreign_key_check").all() == []
    db.close()
