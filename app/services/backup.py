"""Copies of everything that was stored, and back.

The database is copied first and the blobs after it: blobs are written before the rows that name them and never change,
so whatever the copied database names is there when its turn comes, although the server goes on working.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import make_url, select

from app.blobs import BlobStore
from app.db import Database
from app.services.errors import NotFoundError
from app.settings import Settings
from app.tables import ExaminationRow, InstanceRow
from model.errors import ConfigError, DataError

DATABASE_FILE = "overread.sqlite3"
_SHOWN = 3  # of many damaged files


@dataclass(frozen=True)
class Copied:
    """What a copy holds. blobs, size_bytes: all of them, each compared with its hash. new: copied this time.

    database: whether the copy has the database in it, which PostgreSQL's has not.
    """

    blobs: int
    size_bytes: int
    new: int
    database: bool


def back_up(settings: Settings, out: Path) -> Copied:
    """Copies database (SQLite), blobs and own checkpoints into the folder; one that has a copy gets what is new.

    Raises ConfigError `nothing_to_back_up`, DataError `damaged` once all that is sound has been copied, OSError.
    """
    if not (settings.data_dir / "blobs").is_dir():
        raise ConfigError("nothing_to_back_up", f"{settings.data_dir} holds no studies: see OVERREAD_DATA_DIR.")
    if out.resolve().is_relative_to(settings.data_dir.resolve()):
        raise ConfigError("backup_inside", f"{out} lies in the data folder, which is what may be lost: choose another.")
    out.mkdir(parents=True, exist_ok=True)
    file = _sqlite_file(settings.resolved_database_url)
    if file is not None:
        _copy_sqlite(file, out / DATABASE_FILE)
    return _copy_files(settings.data_dir, out, f"sqlite:///{out / DATABASE_FILE}" if file else _url(settings))


def restore(source: Path, settings: Settings) -> Copied:
    """Fills an empty data folder from a copy, and brings the database to this version.

    With PostgreSQL the database comes back first (pg_restore); this checks that it and the blobs belong together.
    Raises ConfigError `not_a_backup`, `not_empty`, DataError `damaged`, OSError.
    """
    file = _sqlite_file(settings.resolved_database_url)
    if not (source / "blobs").is_dir() or (file is not None and not (source / DATABASE_FILE).is_file()):
        raise ConfigError("not_a_backup", f"{source} is not what `overread backup` makes for this kind of database.")
    occupied = [path for path in (settings.data_dir / "blobs", file) if path is not None and path.exists()]
    if occupied:
        raise ConfigError("not_empty", f"{occupied[0]} exists already: restore into an empty data folder.")
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        _copy_sqlite(source / DATABASE_FILE, file)
    db = Database(settings.resolved_database_url)
    db.migrate()
    db.close()
    return _copy_files(source, settings.data_dir, _url(settings))


def _copy_files(source: Path, target: Path, database_url: str) -> Copied:
    """Own checkpoints and calibrations, and blobs, each compared with its name here and there."""
    for own in ("checkpoints", "calibrations"):
        if (source / own).is_dir():
            shutil.copytree(source / own, target / own, dirs_exist_ok=True)
    blobs, copies = BlobStore(source / "blobs"), BlobStore(target / "blobs")
    named = named_by(
        database_url
    )  # before the look at the files: of a server that works on, later rows have later files
    present = set(copies.digests())
    count = size_bytes = 0
    damaged: list[str] = []
    digests = list(blobs.digests())
    for digest in digests:
        try:
            data = blobs.check(digest)
            if digest in present:
                copies.check(digest)
            else:
                copies.put(data)
        except DataError:
            damaged.append(digest)
            continue
        count += 1
        size_bytes += len(data)
    missing = sorted(named - set(digests))
    if damaged or missing:
        raise DataError("damaged", _complaint(damaged, missing, count))
    return Copied(count, size_bytes, len(set(digests) - present), _sqlite_file(database_url) is not None)


def named_by(database_url: str) -> set[str]:
    """Hashes of the blobs that the database counts on."""
    db = Database(database_url)
    try:
        with db.read() as session:
            rows = session.execute(select(InstanceRow.sha256, InstanceRow.thumbnail_sha256)).all()
            proofs = session.scalars(select(ExaminationRow.proofs)).all()
    finally:
        db.close()
    pictures = {one["sha256"] for of in proofs for several in of.values() for one in several}
    return {digest for row in rows for digest in row if digest} | pictures


def _copy_sqlite(source: Path, target: Path) -> None:
    """SQLite's online backup: a consistent copy beside running writers, whole or not at all. Raises DataError."""
    if not source.is_file():
        raise NotFoundError("no_database", f"There is no database at {source}.")
    temporary = target.with_name(f".new-{target.name}")
    temporary.unlink(missing_ok=True)
    try:
        with closing(sqlite3.connect(source)) as live, closing(sqlite3.connect(temporary)) as copy:
            live.backup(copy)
            copy.execute("PRAGMA journal_mode=DELETE")  # one file, without a log beside it
            (verdict,) = copy.execute("PRAGMA integrity_check").fetchone()
    except sqlite3.DatabaseError as error:
        raise DataError("damaged", f"{source} is not a sound SQLite database ({error}).") from error
    if verdict != "ok":
        raise DataError("damaged", f"{source} is not a sound SQLite database ({verdict}).")
    handle = os.open(temporary, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
    temporary.replace(target)


def _url(settings: Settings) -> str:
    return settings.resolved_database_url


def _sqlite_file(url: str) -> Path | None:
    """The database's file, None with PostgreSQL."""
    parsed = make_url(url)
    return Path(parsed.database) if parsed.get_backend_name() == "sqlite" and parsed.database else None


def _complaint(damaged: list[str], missing: list[str], sound: int) -> str:
    parts = [
        f"{len(digests)} {what} ({', '.join(digest[:12] for digest in digests[:_SHOWN])}…)"
        for digests, what in ((damaged, "damaged"), (missing, "missing"))
        if digests
    ]
    return f"Of the stored files {' and '.join(parts)}; the {sound} sound ones were copied."
