"""What was chosen on a page rather than in the environment."""

from __future__ import annotations

from sqlalchemy import JSON, String
from sqlalchemy.orm import Mapped, mapped_column

from app.tables.base import Base


class SettingRow(Base):
    """One choice. value: JSON, its shape belongs to the key."""

    __tablename__ = "settings"

    key: Mapped[str] = mapped_column(String(64), primary_key=True)
    value: Mapped[object] = mapped_column(JSON)
