"""The chains: hashes by hand, what the database refuses, what verification finds, and no forks."""

from __future__ import annotations

import hashlib
import json
import threading

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import DBAPIError

from app.db import Database
from app.services.audit import AuditService
from app.services.chain import FIRST, Break, canonical, seal, verify
from app.services.users import Actor
from app.tables import AuditRow
from tests.app.chains import tamper

READER = Actor("u1", "Ada")
INSERT = "INSERT INTO audit_events SELECT {} FROM audit_events WHERE sequence = 5"


@pytest.fixture
def audit(db: Database) -> AuditService:
    audit = AuditService(db)
    for n in range(5):
        audit.note(READER, "study.read", f"{n:032x}")
    return audit


def rows(db: Database) -> list[AuditRow]:
    with db.read() as session:
        return list(session.scalars(select(AuditRow).order_by(AuditRow.sequence)))


def test_a_link_is_the_hash_of_the_one_before_and_the_canonical_document(db: Database, audit: AuditService) -> None:
    assert canonical({"b": "é", "a": [1, None]}) == '{"a":[1,null],"b":"é"}'
    previous = "0" * 64
    for number, row in enumerate(rows(db), 1):
        assert (row.sequence, row.previous_hash) == (number, previous)
        assert row.hash == hashlib.sha256(previous.encode() + row.document.encode()).hexdigest()
        document = json.loads(row.document)
        assert canonical(document) == row.document and document["sequence"] == number
        assert document["actor"] == "Ada" and document["actor_id"] == "u1" and document["subject"] == row.subject
        previous = row.hash
    with pytest.raises(ValueError, match="JSON"):
        canonical({"score": float("nan")})


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit_events SET actor = 'Eve' WHERE sequence = 2",
        "DELETE FROM audit_events WHERE sequence = 5",
        "DELETE FROM audit_events",
        INSERT.format("7, at, actor, action, subject, document, hash, 'x'"),
        INSERT.format("6, at, actor, action, subject, document, 'y', 'x'"),
        INSERT.format("6, at, actor, action, subject, document, hash, hash"),
    ],
)  # fmt: skip
def test_the_database_itself_refuses_to_change_or_fork(db: Database, audit: AuditService, statement: str) -> None:
    before = [(row.sequence, row.hash, row.document) for row in rows(db)]
    with pytest.raises(DBAPIError), db.engine.begin() as connection:
        connection.execute(text(statement))
    assert [(row.sequence, row.hash, row.document) for row in rows(db)] == before


def test_what_goes_round_ordinary_statements_is_refused_too(db: Database, audit: AuditService) -> None:
    replace = "INSERT OR REPLACE INTO audit_events SELECT 6, at, 'Eve', action, subject, document, hash, hash"
    statements = (
        ["TRUNCATE audit_events", "DELETE FROM ONLY audit_events"]
        if db.engine.dialect.name == "postgresql"
        else [
            f"{replace} FROM audit_events WHERE sequence = 5",
            "REPLACE INTO audit_events SELECT sequence, at, 'Eve', action, subject, document, previous_hash, hash "
            "FROM audit_events WHERE sequence = 5",
            "UPDATE OR REPLACE audit_events SET sequence = 4 WHERE sequence = 5",
        ]
    )
    for statement in statements:
        with pytest.raises(DBAPIError), db.engine.begin() as connection:
            connection.execute(text(statement))
    assert len(rows(db)) == 5 and {row.actor for row in rows(db)} == {"Ada"}


@pytest.mark.parametrize(
    ("statement", "sequence", "why", "holding"),
    [
        ("UPDATE audit_events SET document = replace(document, 'Ada', 'Eve') WHERE sequence = 3", 3, "contents", 2),
        ("UPDATE audit_events SET actor = 'Eve' WHERE sequence = 4", 4, "column actor", 3),
        ("DELETE FROM audit_events WHERE sequence = 2", 3, "row 2 is missing", 1),
        ("DELETE FROM audit_events WHERE sequence = 1", 2, "row 1 is missing", 0),
        (f"UPDATE audit_events SET previous_hash = '{'1' * 64}' WHERE sequence = 5", 5, "row before it", 4),
    ],
)
def test_verification_names_the_first_broken_link(
    db: Database, audit: AuditService, statement: str, sequence: int, why: str, holding: int
) -> None:
    tamper(db, "audit_events", statement)
    _, report = audit.verify()
    assert report.broken is not None and report.broken.sequence == sequence and why in report.broken.why
    assert report.length == holding


def test_a_forged_row_needs_every_later_one_forged_and_a_noted_hash_tells(db: Database, audit: AuditService) -> None:
    noted = rows(db)[-1].hash
    last, before = rows(db)[4], rows(db)[3]
    forged = last.document.replace("Ada", "Eve")
    statement = "UPDATE audit_events SET document = '{}', actor = 'Eve', hash = '{}' WHERE sequence = 5"
    tamper(db, "audit_events", statement.format(forged, seal(before.hash, forged)))
    assert audit.verify()[1].broken is None
    assert not audit.holds(noted) and audit.holds(before.hash)


def test_an_empty_chain_holds_and_long_ones_are_read_in_parts(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.services.chain._BATCH", 3)
    audit = AuditService(db)
    assert [(report.length, report.head, report.broken) for report in audit.verify()] == [(0, FIRST, None)] * 2
    for n in range(9):
        audit.note(READER, "study.read", str(n))
        assert audit.verify()[1].length == n + 1
    with db.read() as session:
        assert verify(session, AuditRow).head == rows(db)[-1].hash
    tamper(db, "audit_events", "DELETE FROM audit_events WHERE sequence = 7")
    assert audit.verify()[1].broken == Break(8, "row 7 is missing")


def test_many_writers_make_one_chain(db: Database) -> None:
    audit, failures = AuditService(db), []

    def write(who: int) -> None:
        try:
            for n in range(10):
                audit.note(Actor(str(who), f"writer {who}"), "study.read", str(n))
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=write, args=(who,)) for who in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    _, report = audit.verify()
    assert report.length == 60 and report.broken is None
    for who in range(6):
        assert [row.subject for row in rows(db) if row.actor == f"writer {who}"] == [str(n) for n in range(10)]


def test_an_event_is_there_only_if_what_it_tells_of_is(db: Database, audit: AuditService) -> None:
    with pytest.raises(RuntimeError), db.write() as session:
        audit.record(session, READER, "study.read_first", "x")
        raise RuntimeError
    assert len(rows(db)) == 5
