"""Who acts. The one place that says so."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request

LOCAL = "local"


def actor(request: Request) -> str:
    """The name under which a change is recorded; on an open server everybody is the person at the machine."""
    return LOCAL


Actor = Annotated[str, Depends(actor)]
