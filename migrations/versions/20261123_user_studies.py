"""user studies"""

import sqlalchemy as sa
from alembic import op

revision = "1ad1893d0781"
down_revision = "b7d1c6a90e25"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "studies",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("question", sa.Text(), nullable=False),
        sa.Column("ties", sa.Boolean(), nullable=False),
        sa.Column("repeats", sa.Integer(), nullable=False),
        sa.Column("pairs_per_voter", sa.Integer(), nullable=False),
        sa.Column("voters", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("closed_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_studies")),
    )
    with op.batch_alter_table("studies", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_studies_created_at"), ["created_at"], unique=False)

    op.create_table(
        "study_voters",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("study_id", sa.String(length=40), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["study_id"], ["studies.id"], name=op.f("fk_study_voters_study_id_studies")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_study_voters")),
        sa.UniqueConstraint("study_id", "number", name=op.f("uq_study_voters_study_id_number")),
    )
    op.create_table(
        "study_clips",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("study_id", sa.String(length=40), nullable=False),
        sa.Column("scene", sa.Text(), nullable=False),
        sa.Column("method", sa.Text(), nullable=False),
        sa.Column("job_id", sa.String(length=40), nullable=True),
        sa.Column("path", sa.Text(), nullable=True),
        sa.Column("upload_id", sa.String(length=40), nullable=True),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_study_clips_job_id_jobs")),
        sa.ForeignKeyConstraint(["study_id"], ["studies.id"], name=op.f("fk_study_clips_study_id_studies")),
        sa.ForeignKeyConstraint(["upload_id"], ["uploads.id"], name=op.f("fk_study_clips_upload_id_uploads")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_study_clips")),
        sa.UniqueConstraint("study_id", "scene", "method", name=op.f("uq_study_clips_study_id_scene_method")),
    )
    with op.batch_alter_table("study_clips", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_study_clips_job_id"), ["job_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_study_clips_upload_id"), ["upload_id"], unique=False)

    op.create_table(
        "study_pairs",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("voter_id", sa.String(length=40), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("first_id", sa.String(length=40), nullable=False),
        sa.Column("second_id", sa.String(length=40), nullable=False),
        sa.Column("swapped", sa.Boolean(), nullable=False),
        sa.Column("repeated", sa.Boolean(), nullable=False),
        sa.Column("shown_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("choice", sa.String(length=20), nullable=True),
        sa.Column("voted_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("choice IN ('left', 'right', 'tie')", name=op.f("ck_study_pairs_choice")),
        sa.ForeignKeyConstraint(["first_id"], ["study_clips.id"], name=op.f("fk_study_pairs_first_id_study_clips")),
        sa.ForeignKeyConstraint(["second_id"], ["study_clips.id"], name=op.f("fk_study_pairs_second_id_study_clips")),
        sa.ForeignKeyConstraint(["voter_id"], ["study_voters.id"], name=op.f("fk_study_pairs_voter_id_study_voters")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_study_pairs")),
        sa.UniqueConstraint(
            "voter_id",
            "first_id",
            "second_id",
            "repeated",
            name=op.f("uq_study_pairs_voter_id_first_id_second_id_repeated"),
        ),
        sa.UniqueConstraint("voter_id", "number", name=op.f("uq_study_pairs_voter_id_number")),
    )
    with op.batch_alter_table("study_pairs", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_study_pairs_first_id"), ["first_id"], unique=False)


def downgrade() -> None:
    with op.batch_alter_table("study_pairs", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_study_pairs_first_id"))

    op.drop_table("study_pairs")
    with op.batch_alter_table("study_clips", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_study_clips_upload_id"))
        batch_op.drop_index(batch_op.f("ix_study_clips_job_id"))

    op.drop_table("study_clips")
    op.drop_table("study_voters")
    with op.batch_alter_table("studies", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_studies_created_at"))

    op.drop_table("studies")
