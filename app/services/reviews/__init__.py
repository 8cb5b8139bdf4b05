"""What readers say of readings: verdicts, unaided reads, and the chain that keeps them."""

from app.services.reviews.panel import Panel, Said, Subject
from app.services.reviews.record import AIRAI, Entry, added_in_order, to_entry
from app.services.reviews.service import ReviewService, rows_of

__all__ = ["AIRAI", "Entry", "Panel", "ReviewService", "Said", "Subject", "added_in_order", "rows_of", "to_entry"]
