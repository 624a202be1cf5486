"""`python -m dpdy_core`: the core's commands, as the worker starts them."""

import sys

from dpdy_core.cli import app
from dpdy_core.command import run_command

if __name__ == "__main__":
    sys.exit(run_command(app, None, "python -m dpdy_core"))
