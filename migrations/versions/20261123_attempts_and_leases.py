"""attempts, leases with an expiry, pauses, and the outbox"""

import sqlalchemy as sa
from alembic import op

revision = "b7d1c6a90e25"
down_revision = "842f6fc33004"
branch_labels = None
depends_on = None

LIVE = "state IN ('running', 'cancelling')"


def upgrade() -> None:

    op.create_table(
        "attempts",
        sa.Column("job_id", sa.String(length=40), nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("worker", sa.Text(), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("outcome", sa.String(length=40), nullable=True),
        sa.Column("detail", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_attempts_job_id_jobs")),
        sa.PrimaryKeyConstraint("job_id", "number", name=op.f("pk_attempts")),
    )
    live = sa.text("ended_at IS NULL")
    op.create_index("uq_attempts_live", "attempts", ["job_id"], unique=True, sqlite_where=live, postgresql_where=live)
    op.create_table(
        "announcements",
        sa.Column("job_id", sa.String(length=40), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_announcements_job_id_jobs")),
        sa.PrimaryKeyConstraint("job_id", name=op.f("pk_announcements")),
    )
    # plain ALTERs: batch mode would copy the table and drop the old one, to which other tables refer
    op.add_column("jobs", sa.Column("lease_expires_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("jobs", sa.Column("run_after", sa.DateTime(timezone=True), nullable=True))
    op.add_column("jobs", sa.Column("first_attempt", sa.Integer(), nullable=False, server_default="1"))
    op.drop_column("jobs", "crashes")
    op.execute(f"UPDATE jobs SET lease_expires_at = heartbeat_at WHERE {LIVE}")  # their workers have stopped
    op.execute(
        "INSERT INTO attempts (job_id, number, worker, started_at)"
        f" SELECT id, attempt, coalesce(owner, ''), coalesce(heartbeat_at, queued_at) FROM jobs WHERE {LIVE}"
    )


def downgrade() -> None:

    op.add_column("jobs", sa.Column("crashes", sa.Integer(), nullable=False, server_default="0"))
    op.drop_column("jobs", "first_attempt")
    op.drop_column("jobs", "run_after")
    op.drop_column("jobs", "lease_expires_at")
    op.drop_table("announcements")
    op.drop_table("attempts")
