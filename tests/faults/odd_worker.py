"""`dpdy worker` with one thing odd.

`clock=SECONDS` (how far it is off), `visibility=SECONDS` (of the messages), or `version=NEXT` (which knows settings
that this one does not).
"""

import sys
from datetime import timedelta

from api.db import models

what, _, value = sys.argv[1].partition("=")
right = models.now
if what == "clock":
    models.now = lambda: right() + timedelta(seconds=float(value))  # before anybody has imported it by name

from api.settings import Settings  # noqa: E402
from worker import celery_app  # noqa: E402

if what == "visibility":
    make = celery_app.make_celery

    def make_impatient(broker_url: str) -> celery_app.Celery:
        app = make(broker_url)
        app.conf.broker_transport_options |= {"visibility_timeout": float(value)}
        return app

    celery_app.make_celery = make_impatient

if what == "version":
    from pydantic import ConfigDict

    from dpdy_core.config import RunConfig
    from worker import folder, station

    class Newer(RunConfig):
        model_config = ConfigDict(extra="ignore")

    folder.RunConfig = Newer  # type: ignore[misc]
    station.__version__ = value

celery_app.run_worker(Settings())
