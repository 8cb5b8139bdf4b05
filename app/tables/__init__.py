"""What is stored, one file a subject. Files' bytes are blobs (app/blobs.py); the rows hold their SHA-256."""

from app.tables.audit import AuditRow
from app.tables.base import Base, now, utc
from app.tables.experiments import ExperimentRow, SweepRow
from app.tables.jobs import JobEventRow, JobRow
from app.tables.reviews import ReadFirstRow, ReviewRow
from app.tables.settings import SettingRow
from app.tables.studies import AnalysisRow, InstanceRow, StudyRow, StudyWordRow
from app.tables.users import SessionRow, UserRow

__all__ = [
    "AnalysisRow",
    "AuditRow",
    "Base",
    "ExperimentRow",
    "InstanceRow",
    "JobEventRow",
    "JobRow",
    "ReadFirstRow",
    "ReviewRow",
    "SessionRow",
    "SettingRow",
    "StudyRow",
    "StudyWordRow",
    "SweepRow",
    "UserRow",
    "now",
    "utc",
]
