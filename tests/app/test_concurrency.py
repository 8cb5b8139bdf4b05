"""Many at once: nothing is lost, and nobody waits for ever. The same on SQLite and on PostgreSQL."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.context import Services
from app.db import Database
from app.services.analyses import _put
from app.services.checkpoints import PairChoice
from app.services.instances import ensure_row
from app.services.readings import Reading, read
from app.services.summaries import refresh
from app.services.users import LOCAL
from app.services.worklist import Filters
from app.settings import Settings
from app.tables import InstanceRow, StudyRow, StudyWordRow
from model.radiograph import read_radiograph
from tests.app.conftest import greedy_threads, png_bytes, started
from tests.app.dicoms import dicom_bytes
from tests.app.test_database import at_once


@pytest.fixture
def quiet(settings: Settings) -> Iterator[Services]:
    """A server's services, whose background has ended: nobody else writes."""
    with started(settings) as client:
        held: Services = client.app.state.services  # type: ignore[attr-defined]
        held.background.stop()
        yield held


def test_images_of_one_study_that_come_at_once_are_all_counted(quiet: Services) -> None:
    studies, db = quiet.studies, quiet.db
    files = {f"image {n}.dcm": dicom_bytes(n) for n in range(6)}
    at_once(*(lambda name=name, data=data: studies.receive(data, name) for name, data in files.items()))
    with db.read() as session:
        (study,) = session.scalars(select(StudyRow))
        words = set(session.scalars(select(StudyWordRow.word)))
        assert study.instance_count == len(study.instances) == len(files)
    assert {str(n) for n in range(6)} <= words


def test_one_file_sent_by_many_at_once_is_one_instance(quiet: Services) -> None:
    studies, db = quiet.studies, quiet.db
    taken = []
    at_once(*(lambda: taken.append(studies.receive(png_bytes(1), "a.png")) for _ in range(6)))
    assert [one.duplicate for one in taken].count(False) == 1
    with db.read() as session:
        assert len(session.scalars(select(InstanceRow)).all()) == len(session.scalars(select(StudyRow)).all()) == 1


def test_two_that_read_one_radiograph_at_once_are_both_in_its_summary(quiet: Services) -> None:
    """Each server or job stores its reading and writes the summary: the later one must see the earlier one's."""
    data = png_bytes(1)
    study_id = quiet.studies.receive(data, "a.png").study_id
    reference, candidate = read(quiet.engine, read_radiograph(data), quiet.pair)
    pair, db = quiet.live_pair(), quiet.db

    def store(session: Session, reading: Reading) -> None:
        _put(session, reading)
        session.flush()
        refresh(session, [study_id], pair)

    def other() -> None:
        with db.write() as session:
            store(session, candidate)

    thread = threading.Thread(target=other)
    with db.write() as session:
        store(session, reference)
        thread.start()
        thread.join(0.3)  # it stores, and waits for us with its summary
    thread.join()
    (info,) = quiet.studies.worklist.page(Filters(), LOCAL).studies
    assert info.reference is not None and info.candidate is not None and info.disagreement is not None


def test_who_reads_and_who_lists_a_radiograph_at_once_see_each_other(quiet: Services) -> None:
    """A reading that is stored while the radiograph is put on the worklist is in the summary there."""
    data = png_bytes(2)
    quiet.analyses.predict(data, "a.png", ["clean"])
    radiograph = read_radiograph(data)
    (candidate,) = read(quiet.engine, radiograph, ["backdoored"])
    listed = threading.Thread(target=quiet.studies.receive, args=(data, "a.png"))
    with quiet.db.write() as session:
        assert ensure_row(session, radiograph, len(data), "").study_id is None
        _put(session, candidate)
        session.flush()
        listed.start()
        listed.join(0.3)
    listed.join()
    (study,) = quiet.studies.worklist.page(Filters(), LOCAL).studies
    assert study.reference is not None and study.candidate is not None


def test_more_threads_than_connections_all_have_their_turn(db: Database) -> None:
    pair, greedy = PairChoice(db, ("clean", "backdoored")), greedy_threads(db)
    key = "0" * 32

    def work() -> None:
        for _ in range(3):
            assert pair() == ("clean", "backdoored")
            with db.write() as session:
                row = session.get(StudyRow, key, with_for_update=True)
                assert row is not None
                row.instance_count += 1

    with db.write() as session:
        session.add(StudyRow(id=key, title="", format="PNG", thumbnail_sha256="", source="api"))
    at_once(*[work] * 60)
    with db.read() as session:
        assert session.scalar(select(StudyRow.instance_count)) == 180
    assert not greedy


def test_nothing_that_an_address_or_a_form_says_upsets_the_database(shared_client: TestClient) -> None:
    """PostgreSQL cannot be asked for a zero byte: what holds one is unknown or malformed, never an error of ours."""
    asked = 0
    for route in shared_client.app.routes:  # type: ignore[attr-defined]
        for one in route.effective_route_contexts() if hasattr(route, "effective_route_contexts") else []:
            known = re.sub(r"{\w+}", "0" * 32, one.path)
            unknown = re.sub(r"{\w+}", "a%00b", one.path)
            given = [one.dependant, *one.dependant.dependencies]
            query = [field.alias for of in given for field in of.query_params]
            form = [field.alias for field in one.dependant.body_params if field.alias != "file"]
            for method in one.methods - {"HEAD"}:
                requests: list[tuple[str, dict[str, Any]]] = [(unknown, {})]
                requests += [(known, {"params": {name: "a\0b"}}) for name in query]
                requests += [(known, {"data": dict.fromkeys(form, "a") | {name: "a\0b"}}) for name in form]
                for path, more in requests:
                    answer = shared_client.request(method, path, **more)
                    assert answer.status_code < 500, (method, path, more, answer.text)
                    asked += 1
    assert asked > 60
