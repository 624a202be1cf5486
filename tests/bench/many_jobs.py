"""A database as it is after a long time: copies of one finished job with all its rows."""

from sqlalchemy import Engine, Table, text

from api.db.models import Artifact, Attempt, Job, JobEvent, JobTag

CHANGED = {  # of copy i
    "jobs.id": "'job-' || md5(i::text)",
    "jobs.created_at": "created_at - i * interval '1 minute'",
    "jobs.queued_at": "queued_at - i * interval '1 minute'",
    "jobs.finished_at": "finished_at - i * interval '1 minute'",
}


def copy_job(engine: Engine, job_id: str, count: int) -> None:
    """`count` copies with attempts, events, tags and artifacts, spread over the past."""
    with engine.begin() as connection:
        for model in (Job, Attempt, JobEvent, JobTag, Artifact):
            connection.execute(text(_copies(model.__table__)), {"job_id": job_id, "count": count})  # type: ignore[arg-type]
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE"))


def _copies(table: Table) -> str:
    values = [
        CHANGED.get(f"{table.name}.{column.name}", CHANGED["jobs.id"] if column.name == "job_id" else column.name)
        for column in table.columns
    ]
    names = ", ".join(column.name for column in table.columns)
    own = "id" if table.name == "jobs" else "job_id"
    source = f"{table.name}, generate_series(1, :count) AS i WHERE {own} = :job_id"
    return f"INSERT INTO {table.name} ({names}) SELECT {', '.join(values)} FROM {source}"
