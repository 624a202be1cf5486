"""workers that are told to drain"""

import sqlalchemy as sa
from alembic import op

revision = "c3f0a7d25e41"
down_revision = "e3f1a8c5d274"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("workers", sa.Column("drain", sa.String(length=10), nullable=True))


def downgrade() -> None:
    op.drop_column("workers", "drain")
