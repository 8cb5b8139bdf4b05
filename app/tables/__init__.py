"""What is stored, one file a subject. Files' bytes are blobs (app/blobs.py); the rows hold their SHA-256."""

from app.tables.base import Base, now
from app.tables.jobs import JobEventRow, JobRow
from app.tables.settings import SettingRow
from app.tables.studies import AnalysisRow, InstanceRow, StudyRow, StudyWordRow

__all__ = [
    "AnalysisRow",
    "Base",
    "InstanceRow",
    "JobEventRow",
    "JobRow",
    "SettingRow",
    "StudyRow",
    "StudyWordRow",
    "now",
]
