"""Known vulnerabilities of the pinned dependencies: `python -m tests.audit`, a part of `make lint`.

pip-audit calls a package that its database could not tell of "skipped", and an audit of nothing else a success. Here an
audit that did not happen says so in capitals; with `CI` set, it also fails.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

PINS = Path(__file__).parents[1] / "constraints.txt"
DATABASES = ("pypi", "osv")  # the second is asked if the first cannot tell
ENOUGH = 0.9  # of all pins must have been looked up


def main() -> int:
    """0: nothing known, or nobody could be asked; 1: something is known, or, in CI, nobody could be asked."""
    for database in DATABASES:
        found = judge(ask(database))
        if found is not None:
            return report(*found)
    sys.stderr.write(
        "NOT AUDITED: no database of vulnerabilities can be reached from here; dependencies are unchecked\n"
    )
    return 1 if os.environ.get("CI") else 0


def ask(database: str) -> dict[str, Any]:
    """pip-audit's document about the pins; empty if it came to none."""
    options = ["--disable-pip", "--no-deps", "--format", "json", "--progress-spinner", "off", "--timeout", "5"]
    command = [sys.executable, "-m", "pip_audit", "-r", str(PINS), "-s", database, *options]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        document: dict[str, Any] = json.loads(answer.stdout)
    except ValueError:
        return {}
    return document


def judge(document: dict[str, Any]) -> tuple[list[str], list[str]] | None:
    """What is known to be vulnerable, and what could not be looked up; None if that is too much to call it an audit."""
    packages = document.get("dependencies", [])
    skipped = [package["name"] for package in packages if "skip_reason" in package]
    if not packages or len(skipped) > (1 - ENOUGH) * len(packages):
        return None
    known = [
        f"{package['name']} {package['version']}: {hole['id']}, fixed in {', '.join(hole['fix_versions']) or 'none'}"
        for package in packages
        for hole in package.get("vulns", ())
    ]
    return known, skipped


def report(known: list[str], skipped: list[str]) -> int:
    """Say it, and the exit code."""
    for line in known:
        sys.stderr.write(f"vulnerable: {line}\n")
    if skipped:
        sys.stderr.write(f"not looked up: {', '.join(skipped)}\n")
    return 1 if known else 0


if __name__ == "__main__":
    sys.exit(main())
