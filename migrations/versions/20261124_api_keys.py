"""API keys, and a tenant for what users own"""

import sqlalchemy as sa
from alembic import op

revision = "c41f0a7d2b93"
down_revision = "c3f0a7d25e41"
branch_labels = None
depends_on = None

OWNED = ("uploads", "jobs", "studies", "idempotency_keys")


def upgrade() -> None:
    op.create_table(
        "api_keys",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("scopes", sa.JSON(), nullable=False),
        sa.Column("prefix", sa.String(length=20), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_used_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_keys")),
        sa.UniqueConstraint("prefix", name=op.f("uq_api_keys_prefix")),
    )
    op.create_index(op.f("ix_api_keys_tenant"), "api_keys", ["tenant"])
    for table in OWNED:  # the default also serves API processes of the version before, while both run
        op.add_column(table, sa.Column("tenant", sa.String(length=64), nullable=False, server_default="default"))
    op.create_index("ix_uploads_tenant_deleted_at", "uploads", ["tenant", "deleted_at"])
    op.create_index("ix_jobs_tenant_created_at_id", "jobs", ["tenant", "created_at", "id"])
    op.create_index("ix_jobs_tenant_state", "jobs", ["tenant", "state"])
    _key_by(["tenant", "key"])


def downgrade() -> None:
    # of two tenants with the same key the older entry stays
    op.execute(
        "DELETE FROM idempotency_keys WHERE EXISTS (SELECT 1 FROM idempotency_keys AS other"
        " WHERE other.key = idempotency_keys.key AND other.tenant < idempotency_keys.tenant)"
    )
    _key_by(["key"])
    op.drop_index("ix_jobs_tenant_state", "jobs")
    op.drop_index("ix_jobs_tenant_created_at_id", "jobs")
    op.drop_index("ix_uploads_tenant_deleted_at", "uploads")
    for table in reversed(OWNED):
        op.drop_column(table, "tenant")
    op.drop_table("api_keys")


def _key_by(columns: list[str]) -> None:
    with op.batch_alter_table("idempotency_keys") as table:
        table.drop_constraint("pk_idempotency_keys", type_="primary")
        table.create_primary_key("pk_idempotency_keys", columns)
