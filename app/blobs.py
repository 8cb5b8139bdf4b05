"""Files by content: the name of a blob is the SHA-256 of its bytes."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

from app.services.errors import NotFoundError
from model.errors import DataError

_NAME = re.compile(r"[0-9a-f]{64}")


class BlobStore:
    """A folder of immutable files. A blob is there whole or not at all, also when the power goes."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(parents=True, exist_ok=True)

    def put(self, data: bytes) -> str:
        """Stores the bytes and returns their SHA-256; they are on the disk when this returns. Raises OSError."""
        digest = hashlib.sha256(data).hexdigest()
        path = self._path(digest)
        if path.exists():
            return digest
        path.parent.mkdir(exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=".new-", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).rename(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        for folder in (path.parent, self.root):
            _sync_folder(folder)
        return digest

    def get(self, digest: str) -> bytes:
        """The bytes. Raises NotFoundError `blob_missing`."""
        try:
            return self._path(digest).read_bytes()
        except FileNotFoundError as error:
            raise NotFoundError("blob_missing", f"The file {digest[:12]}… is no longer in the data folder.") from error

    def digests(self) -> Iterator[str]:
        """The names of all blobs, in order."""
        for path in sorted(self.root.glob("??/*")):
            if _NAME.fullmatch(path.name):
                yield path.name

    def check(self, digest: str) -> bytes:
        """The bytes, compared with their name. Raises NotFoundError `blob_missing`, DataError `blob_damaged`."""
        data = self.get(digest)
        if hashlib.sha256(data).hexdigest() != digest:
            raise DataError("blob_damaged", f"The file {digest[:12]}… is not what was stored under that name.")
        return data

    def _path(self, digest: str) -> Path:
        if not _NAME.fullmatch(digest):
            raise ValueError(f"{digest!r} is not a SHA-256")
        return self.root / digest[:2] / digest


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
