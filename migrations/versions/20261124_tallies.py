"""sums for the metrics, the device of an attempt, and indexes that count"""

import sqlalchemy as sa
from alembic import op

revision = "e3f1a8c5d274"
down_revision = "5c07d1e4b2a9"
branch_labels = None
depends_on = None

KEPT = sa.text("deleted_at IS NULL")


def upgrade() -> None:
    op.create_table(
        "tallies",
        sa.Column("name", sa.String(length=40), nullable=False),
        sa.Column("label", sa.String(length=80), nullable=False),
        sa.Column("value", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("name", "label", name=op.f("pk_tallies")),
    )
    op.add_column("attempts", sa.Column("device", sa.String(length=20), nullable=True))
    op.create_index("ix_jobs_kept", "jobs", ["state"], postgresql_where=KEPT, sqlite_where=KEPT)
    op.create_index("ix_uploads_kept", "uploads", ["state", "size"], postgresql_where=KEPT, sqlite_where=KEPT)
    op.execute(
        "INSERT INTO tallies SELECT 'attempts', outcome, count(*) FROM attempts"
        " WHERE outcome IS NOT NULL GROUP BY outcome"
    )
    op.execute("INSERT INTO tallies SELECT 'upload_bytes', '', coalesce(sum(size), 0) FROM uploads")


def downgrade() -> None:
    op.drop_index("ix_uploads_kept", "uploads")
    op.drop_index("ix_jobs_kept", "jobs")
    op.drop_column("attempts", "device")
    op.drop_table("tallies")
