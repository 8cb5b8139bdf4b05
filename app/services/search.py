"""Search by the beginnings of words: portable, and as quick for a word that nobody has as for one that all have."""

from __future__ import annotations

import re
from collections.abc import Iterable

from sqlalchemy import ColumnElement, Exists, and_, func, select
from sqlalchemy.orm import InstrumentedAttribute, Session, aliased

from app.tables import StudyRow, StudyWordRow

_MAX_WORD = 64
_MAX_STORED = 64  # of one file: a file name can be anything
_MAX_ASKED = 8
_LISTED = 1000  # so many hits are looked up one by one
_COUNTED = 20_000  # so many candidates are checked for the other words
_LAST = "\U0010ffff"


def words_of(texts: Iterable[str]) -> list[str]:
    """The words under which a study is found: as they stand between spaces, and the parts of those, in lower case."""
    found: dict[str, None] = {}
    for text in texts:
        for word in text.lower().split():
            parts = [] if re.fullmatch(r"[0-9.]+", word) else re.split(r"[\W_]+", word)  # nobody seeks a UID's middle
            found |= dict.fromkeys(part[:_MAX_WORD] for part in (word, *parts) if part)
    return list(found)[:_MAX_STORED]


def asked(q: str) -> list[str]:
    """The words of a search, in lower case."""
    words = q.replace("\0", " ").lower().split()
    return list(dict.fromkeys(word[:_MAX_WORD] for word in words))[:_MAX_ASKED]


def matching(session: Session, q: str) -> ColumnElement[bool] | None:
    """The condition on StudyRow that every word of `q` begins a word of the study; None when nothing is asked.

    Where few studies match, they are named in it, and nothing else is looked at; where many do, the list is walked in
    its order and soon full, each row looked up among the words.
    """
    words = asked(q)
    if not words:
        return None
    counts = {word: _count(session, word) for word in words}
    rarest, *others = sorted(words, key=lambda word: counts[word])
    walked = and_(*(_has(StudyRow.id, word) for word in words))
    if counts[rarest] > _COUNTED:
        return walked
    first = aliased(StudyWordRow)
    query = select(first.study_id).where(_begins(first.word, rarest), *(_has(first.study_id, one) for one in others))
    ids = list(session.scalars(query.distinct().limit(_LISTED + 1)))
    return StudyRow.id.in_(ids) if len(ids) <= _LISTED else walked


def _count(session: Session, word: str) -> int:
    """How many places begin with it, as far as that matters."""
    some = select(StudyWordRow.study_id).where(_begins(StudyWordRow.word, word)).limit(_COUNTED + 1).subquery()
    return session.scalar(select(func.count()).select_from(some)) or 0


def _has(study_id: InstrumentedAttribute[str], word: str) -> Exists:
    other = aliased(StudyWordRow)
    return select(other.word).where(other.study_id == study_id, _begins(other.word, word)).exists()


def _begins(column: InstrumentedAttribute[str], word: str) -> ColumnElement[bool]:
    return and_(column >= word, column < word + _LAST)
