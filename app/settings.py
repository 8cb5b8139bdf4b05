"""What the environment says (OVERREAD_*), as one frozen value."""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path
from typing import Annotated

from pydantic import Field, IPvAnyNetwork, StringConstraints
from pydantic_settings import BaseSettings, SettingsConfigDict
from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

import model
from model.radiograph.image import MAX_PIXELS

# `model.checkpoint.BUNDLED`, which a worker that reads its settings need not import torch for.
DatasetName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
BUNDLED = Path(model.__file__).parent / "checkpoints"


class Settings(BaseSettings):
    """Every setting has a default that serves a newcomer on one machine.

    data_dir: database, blobs and own checkpoints. database_url: SQLAlchemy URL; empty means SQLite in data_dir.
    database_password_file: a file with the URL's password, so that no environment shows it.
    device: `auto`, `cpu` or `cuda:N`. max_upload_mb: a request's body, 2²⁰ bytes each. max_pixels: an image's, refused
    before decoding. queue_size: radiographs that may wait for the device before others are turned away. batch_size:
    radiographs that the device reads at once, at most. decoders: processes that decode uploads; decode_timeout_s: what
    one may take over a small file (as much again for each 4 MB); decode_memory_mb: what it may allocate. worker:
    whether `serve` starts a worker; jobs_at_once: short jobs that a worker runs side by side, and as many that screen
    folders, and one that calibrates; trainings_at_once: trainings beside them; training_threads: what each and a
    calibration may use, 0 means half of the cores. datasets: folders in ChestX-ray14's layout that experiments and
    calibrations may use, by name. reference, candidate: ids of the pair
    that the pages compare. bundled_dir: folder of checkpoint folders that comes with the package;
    data_dir/checkpoints adds to it. allowed_hosts: names that the server answers to, beside `host`.
    trusted_proxies: addresses or networks whose X-Forwarded-For and X-Forwarded-Proto are believed; nobody else's.
    samples: whether an empty worklist begins with synthetic radiographs. read_first: whether readers record their own
    reading of every study before they see predictions. https: whether browsers reach this server through TLS, its own
    or a proxy's; cookies are then sent over nothing else. session_idle_min, session_max_h: how long a sign-in lasts
    unused, and at all.
    """

    model_config = SettingsConfigDict(env_prefix="OVERREAD_", frozen=True, extra="ignore")

    data_dir: Path = Path("data")
    database_url: str = ""
    database_password_file: Path | None = None
    device: str = Field(default="auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$")
    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)
    max_upload_mb: int = Field(default=64, ge=1, le=4096)
    max_pixels: int = Field(default=MAX_PIXELS, ge=1024, le=MAX_PIXELS)
    queue_size: int = Field(default=48, ge=1, le=1024)
    batch_size: int = Field(default=8, ge=1, le=256)
    decoders: int = Field(default=2, ge=1, le=64)
    decode_timeout_s: float = Field(default=2.0, ge=0.1, le=600)
    decode_memory_mb: int = Field(default=1536, ge=64)
    worker: bool = True
    jobs_at_once: int = Field(default=1, ge=1, le=64)
    trainings_at_once: int = Field(default=1, ge=1, le=16)
    training_threads: int = Field(default=0, ge=0, le=256)
    datasets: dict[DatasetName, Path] = {}
    reference: str = "clean"
    candidate: str = "backdoored"
    bundled_dir: Path = BUNDLED
    allowed_hosts: tuple[str, ...] = ("127.0.0.1", "localhost", "[::1]")
    trusted_proxies: tuple[IPvAnyNetwork, ...] = ()
    samples: bool = True
    read_first: bool = False
    https: bool = False
    session_idle_min: int = Field(default=60, ge=1, le=1440)
    session_max_h: int = Field(default=12, ge=1, le=168)

    @property
    def threads_of_a_training(self) -> int:
        """Threads that one training may use, so that serving keeps its share."""
        return self.training_threads or max(1, (os.cpu_count() or 2) // 2)

    @property
    def pair(self) -> tuple[str, str]:
        """Reference and candidate, in that order."""
        return self.reference, self.candidate

    @property
    def resolved_database_url(self) -> str:
        """The URL to connect to. Raises OSError when the password's file cannot be read."""
        if not self.database_url:
            return f"sqlite:///{(self.data_dir / 'overread.sqlite3').resolve()}"
        if self.database_password_file is None:
            return self.database_url
        password = self.database_password_file.read_text().rstrip("\r\n")
        try:
            return make_url(self.database_url).set(password=password).render_as_string(hide_password=False)
        except ArgumentError:  # Database says what is wrong with it
            return self.database_url

    @property
    def checkpoint_dirs(self) -> tuple[Path, ...]:
        """Folders whose subfolders are checkpoints; of two with the same id the first counts."""
        return self.bundled_dir, self.data_dir / "checkpoints"

    @property
    def answered_hosts(self) -> tuple[str, ...]:
        """Names and addresses in a Host header that mean this server."""
        host = self.host.strip("[]")
        return *self.allowed_hosts, f"[{host}]" if ":" in host else host

    @property
    def on_loopback(self) -> bool:
        """Whether `host` is reachable from this machine alone."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host.strip("[]")).is_loopback
        except ValueError:
            return False
