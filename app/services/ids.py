"""What our ids look like. Anything else names nothing, and no database is asked for it: PostgreSQL cannot even be asked
for a zero byte.
"""

from __future__ import annotations

import re

_ID = re.compile(r"[0-9a-f]{32}")


def is_id(text: str) -> bool:
    """Whether a study, instance, analysis or job could have this id."""
    return _ID.fullmatch(text) is not None
