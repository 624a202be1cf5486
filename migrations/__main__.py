"""`python -m migrations`: bring the database to the newest schema, before API and workers start."""

import logging

from api.settings import Settings
from migrations import upgrade

if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s")
    upgrade(Settings().database)
