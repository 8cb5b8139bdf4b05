"""An analysis' fingerprint: everything but the image that decided it.

What was read before it was kept has none, counts as read by something else, and is read again.
"""

import sqlalchemy as sa
from alembic import op

revision: str = "0005"
down_revision: str | None = "0004"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    op.drop_index("ix_analyses_instance", "analyses")
    op.add_column("analyses", sa.Column("fingerprint", sa.String(32), nullable=False, server_default=""))
    op.drop_column("analyses", "code_version")  # it is a part of the fingerprint, and stands in the document
    op.create_index("ix_analyses_instance", "analyses", ["instance_id", "fingerprint"])


def downgrade() -> None:
    op.drop_index("ix_analyses_instance", "analyses")
    op.add_column("analyses", sa.Column("code_version", sa.String(64), nullable=False, server_default=""))
    op.drop_column("analyses", "fingerprint")
    op.create_index("ix_analyses_instance", "analyses", ["instance_id", "checkpoint_id"])
