"""an index of jobs by when they were deleted"""

import sqlalchemy as sa
from alembic import op

revision = "8d2b6f0c4a71"
down_revision = "3c5f0a7e9d18"
branch_labels = None
depends_on = None

DELETED = sa.text("deleted_at IS NOT NULL")


def upgrade() -> None:
    op.create_index("ix_jobs_deleted_at", "jobs", ["deleted_at"], postgresql_where=DELETED, sqlite_where=DELETED)


def downgrade() -> None:
    op.drop_index("ix_jobs_deleted_at", "jobs")
