"""What several ask for at once is made once, and what was asked for last is kept for a while."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

_Key = TypeVar("_Key", bound=Hashable)
_Value = TypeVar("_Value")


class KeyedLocks:
    """One lock for each key, for as long as somebody holds it or waits."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: dict[Hashable, tuple[threading.Lock, int]] = {}

    @contextmanager
    def __call__(self, key: Hashable) -> Iterator[None]:
        with self._lock:
            lock, users = self._held.get(key, (threading.Lock(), 0))
            self._held[key] = lock, users + 1
        try:
            with lock:
                yield
        finally:
            with self._lock:
                users = self._held[key][1] - 1
                if users:
                    self._held[key] = lock, users
                else:
                    del self._held[key]


class Recent(Generic[_Key, _Value]):
    """The last few of something that takes a while to make. Who asks for one that is being made waits for it alone."""

    def __init__(self, kept: int) -> None:
        """kept: how many at most."""
        self._most = kept
        self._kept: OrderedDict[_Key, _Value] = OrderedDict()
        self._lock = threading.Lock()
        self._once = KeyedLocks()

    def get(self, key: _Key, make: Callable[[], _Value]) -> _Value:
        """What is kept under the key, or what `make` gives. Raises what it raises; nothing is kept then."""
        with self._once(key):
            with self._lock:
                if key in self._kept:
                    self._kept.move_to_end(key)
                    return self._kept[key]
            made = make()
            with self._lock:
                self._kept[key] = made
                while len(self._kept) > self._most:
                    self._kept.popitem(last=False)
            return made
