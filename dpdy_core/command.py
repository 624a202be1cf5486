"""How every `dpdy` command ends: one exit code and one plain message for each kind of failure. Torch-free."""

import json
import sys
import traceback
from typing import Any

import typer

from dpdy_core.errors import DpdyError


def run_command(app: Any, argv: list[str] | None, prog: str) -> int:
    """Run a typer app (or a command made from one) on `argv` and return the exit code.

    Usage errors are 2 and Ctrl-C is 130 (typer's own). A DpdyError is its own exit code, with `error: cause. remedy`
    on stderr and, under `--json`, its problem document on stdout. `--debug` anywhere adds the traceback.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    command = typer.main.get_command(app) if isinstance(app, typer.Typer) else app
    try:
        command.main(args=arguments, prog_name=prog, standalone_mode=True)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except DpdyError as error:
        if debug:
            traceback.print_exc()
        if "--json" in arguments:
            sys.stdout.write(json.dumps(error.problem()) + "\n")
        sys.stderr.write(f"error: {error.detail}" + (f". {error.remedy}" if error.remedy else "") + "\n")
        return error.exit_code
    except BrokenPipeError:
        return 141  # the reader of our output went away, as for any Unix filter
    except Exception as error:
        if debug:
            traceback.print_exc()
        sys.stderr.write(f"error: {type(error).__name__}: {error}. Run again with --debug for the traceback\n")
        return 4
    return 0
