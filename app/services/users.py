"""Who may sign in: passwords, and the sessions of those who did."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import threading
import unicodedata
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from uuid import uuid4

from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter
from pwdlib import PasswordHash
from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from app.db import Database
from app.services.errors import CredentialsError, NotFoundError, TooManyAttemptsError
from app.tables import SessionRow, UserRow, now, utc
from model.errors import ConfigError

SHORTEST_PASSWORD = 8
LONGEST_PASSWORD = 1024
_NAME = re.compile(r"[\w][\w.@+ -]{0,62}[\w]|[\w]")
_WINDOW_MIN = 15
_PER_NAME, _PER_ADDRESS = 10, 50
_TOUCH_EVERY = timedelta(minutes=1)
_REMEMBERED = 256


@dataclass(frozen=True)
class Actor:
    """Who acts. id: the user's, which outlives a change of name. name: as it is shown and recorded."""

    id: str
    name: str
    signed_in: bool = True


LOCAL = Actor("local", "local", signed_in=False)  # whoever uses this machine, as long as there are no users


@dataclass(frozen=True)
class User:
    """An account. created_at: to the minute, UTC."""

    id: str
    name: str
    created_at: str


class UserService:
    """Accounts, sign-in, sessions. `clock` is doubled in tests."""

    def __init__(
        self,
        db: Database,
        idle: timedelta = timedelta(minutes=60),
        absolute: timedelta = timedelta(hours=12),
        clock: Callable[[], datetime] = now,
    ) -> None:
        self.db = db
        self.idle = idle
        self.absolute = absolute
        self.clock = clock
        self._hasher = PasswordHash.recommended()
        self._nobody = _nobodys_hash()
        self._hashing = threading.BoundedSemaphore(2)  # each Argon2 takes 64 MiB
        self._limiter = MovingWindowRateLimiter(MemoryStorage())
        self._key = secrets.token_bytes(32)
        self._known: OrderedDict[bytes, datetime] = OrderedDict()

    def any(self) -> bool:
        """Whether somebody can sign in."""
        with self.db.read() as session:
            return session.scalars(select(UserRow.id).limit(1)).first() is not None

    def list(self) -> list[User]:
        """Every account by name."""
        with self.db.read() as session:
            return [_user(row) for row in session.scalars(select(UserRow).order_by(UserRow.key))]

    def add(self, name: str, password: str) -> User:
        """A new account. Raises ConfigError `bad_name`, `name_taken` or `bad_password`."""
        shown = _checked_name(name)
        hashed = self._hashed(password)
        with self.db.write() as session:
            if _find(session, shown):
                raise ConfigError("name_taken", f"There is a user “{shown}” already; `overread users list` shows all.")
            row = UserRow(id=uuid4().hex, name=shown, key=_key(shown), password_hash=hashed)
            session.add(row)
            session.flush()
            return _user(row)

    def set_password(self, name: str, password: str) -> None:
        """Another password; every session of the user ends. Raises NotFoundError, ConfigError `bad_password`."""
        hashed = self._hashed(password)
        with self.db.write() as session:
            row = _require(session, name)
            row.password_hash = hashed
            session.execute(delete(SessionRow).where(SessionRow.user_id == row.id))

    def remove(self, name: str, *, last_too: bool = False) -> None:
        """Takes an account away, and its sessions; what it recorded stays.

        Raises NotFoundError `unknown_user`, ConfigError `last_user` unless last_too.
        """
        with self.db.write() as session:
            row = _require(session, name)
            if not last_too and session.scalar(select(func.count()).select_from(UserRow)) == 1:
                raise ConfigError(
                    "last_user",
                    f"“{row.name}” is the last user; without one the dashboard is open to everybody on this machine. "
                    "Say --last to remove it all the same.",
                )
            session.delete(row)

    def authenticate(self, name: str, password: str, address: str) -> Actor:
        """Checks a password; failures are counted by name and address.

        Raises CredentialsError `wrong_credentials`, TooManyAttemptsError.
        """
        with self.db.read() as session:
            row = _find(session, name)
        stored = row.password_hash if row else self._nobody
        seal = hmac.digest(self._key, f"{stored}\0{password}".encode(errors="replace"), "sha256")
        if row and self._known.get(seal, datetime.min.replace(tzinfo=UTC)) > self.clock():
            return Actor(row.id, row.name)
        limits = ((_PER_NAME, f"{_key(name)[:64]} {address}"), (_PER_ADDRESS, address))
        items = [(RateLimitItemPerMinute(count, _WINDOW_MIN), key) for count, key in limits]
        if not all(self._limiter.test(item, key) for item, key in items):
            raise TooManyAttemptsError(
                "too_many_attempts",
                f"There were too many failed attempts; try again in {_WINDOW_MIN} minutes.",
                _WINDOW_MIN * 60,
            )
        with self._hashing:  # also for a name that does not exist, so that the time tells nothing
            right = len(password) <= LONGEST_PASSWORD and self._hasher.verify(password, stored)
        if row is None or not right:
            for item, key in items:
                self._limiter.hit(item, key)
            raise CredentialsError("wrong_credentials", "The name or the password is not right.")
        self._known[seal] = self.clock() + timedelta(minutes=1)  # a program sends its password with every request
        while len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)
        return Actor(row.id, row.name)

    def begin(self, actor: Actor, previous: str = "") -> str:
        """Signs in: a new session's secret, for the cookie. previous: the browser's old one, which ends."""
        secret = secrets.token_urlsafe(32)
        moment = self.clock()
        with self.db.write() as session:
            ended = (SessionRow.created_at < moment - self.absolute) | (SessionRow.seen_at < moment - self.idle)
            session.execute(delete(SessionRow).where(ended | (SessionRow.id_hash == _hash(previous))))
            session.add(SessionRow(id_hash=_hash(secret), user_id=actor.id, created_at=moment, seen_at=moment))
        return secret

    def end(self, secret: str) -> None:
        """Signs out."""
        with self.db.write() as session:
            session.execute(delete(SessionRow).where(SessionRow.id_hash == _hash(secret)))

    def resume(self, secret: str) -> Actor | None:
        """Who a session belongs to, while it lasts; being used keeps it alive."""
        moment = self.clock()
        with self.db.read() as session:
            row = session.get(SessionRow, _hash(secret))
            if row is None:
                return None
            created, seen = utc(row.created_at), utc(row.seen_at)
            actor = Actor(row.user.id, row.user.name)
        if moment - created > self.absolute or moment - seen > self.idle:
            return None
        if moment - seen > _TOUCH_EVERY:
            with self.db.write() as session:
                session.execute(update(SessionRow).where(SessionRow.id_hash == _hash(secret)).values(seen_at=moment))
        return actor

    def _hashed(self, password: str) -> str:
        if not SHORTEST_PASSWORD <= len(password) <= LONGEST_PASSWORD:
            raise ConfigError(
                "bad_password", f"A password has at least {SHORTEST_PASSWORD} characters, {LONGEST_PASSWORD} at most."
            )
        return self._hasher.hash(password)


@cache
def _nobodys_hash() -> str:
    """Of a password that nobody knows, for names that do not exist."""
    return PasswordHash.recommended().hash(secrets.token_hex())


def _checked_name(name: str) -> str:
    shown = unicodedata.normalize("NFC", name.strip())
    if not _NAME.fullmatch(shown):
        raise ConfigError(
            "bad_name", "A name has letters, digits and . @ + - or spaces between them, 64 characters at most."
        )
    return shown


def _key(name: str) -> str:
    return unicodedata.normalize("NFKC", name.strip()).casefold()


def _find(session: Session, name: str) -> UserRow | None:
    if "\0" in name:  # PostgreSQL cannot even be asked
        return None
    return session.scalars(select(UserRow).where(UserRow.key == _key(name))).first()


def _require(session: Session, name: str) -> UserRow:
    row = _find(session, name)
    if row is None:
        raise NotFoundError("unknown_user", f"There is no user “{name}”; `overread users list` shows all.")
    return row


def _user(row: UserRow) -> User:
    return User(row.id, row.name, row.created_at.strftime("%Y-%m-%d %H:%M"))


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode(errors="replace")).hexdigest()
