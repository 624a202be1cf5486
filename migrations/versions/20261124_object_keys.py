"""the objects of artifacts in a bucket"""

import sqlalchemy as sa
from alembic import op

revision = "20261124_objects"
down_revision = "1ad1893d0781"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("artifacts") as batch_op:
        batch_op.add_column(sa.Column("object_key", sa.String(length=200), nullable=True))


def downgrade() -> None:
    with op.batch_alter_table("artifacts") as batch_op:
        batch_op.drop_column("object_key")
