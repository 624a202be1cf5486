import ast
import importlib
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

import dpdy

ROOT = Path(dpdy.__file__).parent
HEAVY = ("torch", "diffusers", "transformers", "cv2", "av", "pycolmap")
# runs the umbrella, then prints which of the heavy modules it has loaded, whatever the exit code
PROBE = """
import sys, dpdy
try:
    dpdy.main(sys.argv[1:])
except SystemExit as end:
    code = end.code
print("PROBE", code, sorted(name for name in sys.modules if name in {heavy!r}))
"""


def probe(*arguments: str) -> tuple[int, list[str], str]:
    command = [sys.executable, "-c", PROBE.replace("{heavy!r}", repr(HEAVY)), *arguments]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=ROOT)
    last = result.stdout.rstrip().splitlines()[-1]
    assert last.startswith("PROBE "), result.stderr
    _, code, loaded = last.split(" ", 2)
    return int(code), ast.literal_eval(loaded), result.stdout + result.stderr


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--help"], 0),
        ([], 2),
        (["--version"], 0),
        (["status", "--help"], 0),
        (["status", "job-1", "--server", "nonsense"], 2),
        (["run", "--help"], 0),
        (["serve", "--help"], 0),
    ],
)
def test_what_needs_no_torch_loads_none(arguments: list[str], code: int) -> None:
    ended, loaded, output = probe(*arguments)
    assert (ended, loaded) == (code, []), output


def test_the_overview_lists_every_command() -> None:
    _, _, output = probe("--help")
    for name in dpdy.COMMANDS:
        assert f" {name} " in output


def test_a_misspelt_command_is_a_usage_error_with_a_hint() -> None:
    code, _, output = probe("submitt")
    assert code == 2
    assert "submit" in output


@pytest.mark.parametrize("module", sorted({module for module, _ in dpdy.COMMANDS.values()}))
def test_the_table_names_exactly_the_commands_of_each_module(module: str) -> None:
    command = typer.main.get_command(importlib.import_module(module).app)
    offered = {name for name, sub in command.commands.items() if not sub.hidden}  # type: ignore[attr-defined]
    assert offered == {name for name, (home, _) in dpdy.COMMANDS.items() if home == module}


@pytest.mark.parametrize("name", dpdy.COMMANDS)
def test_the_help_of_every_command_has_an_example_and_json_where_it_returns(name: str) -> None:
    app = importlib.import_module(dpdy.COMMANDS[name][0]).app
    command = typer.main.get_command(app).commands[name]  # type: ignore[attr-defined]
    assert re.search(rf"^Example: .*dpdy {name}\b", command.help or "", re.MULTILINE)
    if name not in ("serve", "worker"):
        for leaf in leaves(command):
            assert "--json" in {option for parameter in leaf.params for option in parameter.opts}, leaf.name


def leaves(command: Any) -> list[Any]:
    """The command itself, or the commands of a group."""
    subs = getattr(command, "commands", {}).values()
    return [leaf for sub in subs for leaf in leaves(sub)] or [command]
