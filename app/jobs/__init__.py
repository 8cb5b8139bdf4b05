"""Long work: a ledger in the database, and kinds of jobs that know nothing of where they run."""

from app.jobs.context import Context, JobCancelled, JobFailed, StaleAttempt
from app.jobs.ledger import Job, JobEvent, JobState, Ledger, Progress

__all__ = [
    "Context",
    "Job",
    "JobCancelled",
    "JobEvent",
    "JobFailed",
    "JobState",
    "Ledger",
    "Progress",
    "StaleAttempt",
]
