"""A round of fault tests writes the table of results into docs/reliability.md, if it is asked to."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

TABLE = Path("docs/reliability.md")
BEGIN, END = "<!-- fault tests: written by `make faults` -->", "<!-- end of fault tests -->"
_results: dict[str, list[tuple[str, str, float]]] = {}  # what was done, how it ended, seconds


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    report = yield
    names = [mark.args[0] for mark in item.iter_markers("fault")]
    if names and (report.when == "call" or report.outcome != "passed"):
        what = (item.function.__doc__ or item.name).strip().partition("\n")[0].rstrip(".")  # type: ignore[attr-defined]
        if measured := dict(item.user_properties).get("measured"):
            what += f" ({measured})"
        for name in names:
            _results.setdefault(name, []).append((what, report.outcome, report.duration))
    return report


def pytest_sessionfinish() -> None:
    """The table, if the round is asked to write it."""
    if not os.environ.get("FAULT_TABLE") or not _results:
        return
    text = TABLE.read_text()
    before, _, rest = text.partition(BEGIN)
    table, _, after = rest.partition(END)
    rows = {found[1]: found[0] for found in re.finditer(r"^\| (F\d+) \|.*$", table, re.MULTILINE)}
    for name, entries in _results.items():  # of a round of some tests the other rows stay
        whats = "; ".join(dict.fromkeys(what for what, _, _ in entries))
        outcomes = {outcome for _, outcome, _ in entries}
        result = "failed" if "failed" in outcomes else "skipped" if outcomes == {"skipped"} else "passed"
        rows[name] = f"| {name} | {whats} | {len(entries)} | {result} | {sum(s for _, _, s in entries):.0f} |"
    head = ["| # | what is done, and what must follow | tests | result | seconds |", "|---|---|---|---|---|"]
    ordered = [rows[name] for name in sorted(rows, key=lambda name: int(name[1:]))]
    TABLE.write_text("\n".join([before + BEGIN, "", *head, *ordered, "", END + after]))
