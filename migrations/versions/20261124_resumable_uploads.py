"""resumable uploads"""

import sqlalchemy as sa
from alembic import op

revision = "3c5f0a7e9d18"
down_revision = "c41f0a7d2b93"
branch_labels = None
depends_on = None


def upgrade() -> None:

    # plain ALTERs: batch mode would copy the table and drop the old one, to which jobs refer
    op.add_column("uploads", sa.Column("expected_sha256", sa.String(length=64), nullable=True))
    op.add_column("uploads", sa.Column("tus_metadata", sa.Text(), nullable=True))
    op.add_column("uploads", sa.Column("unverified_from", sa.BigInteger(), nullable=True))


def downgrade() -> None:

    op.drop_column("uploads", "unverified_from")
    op.drop_column("uploads", "tus_metadata")
    op.drop_column("uploads", "expected_sha256")
