"""An audit of dependencies that did not happen is no success."""

from typing import Any

import pytest

from tests import audit

HOLE = {"id": "PYSEC-2026-1", "fix_versions": ["1.1"], "aliases": [], "description": ""}


def document(fine: int, skipped: int, holes: int = 0) -> dict[str, Any]:
    """In pip-audit's format."""
    packages: list[dict[str, Any]] = [{"name": f"f{n}", "version": "1", "vulns": []} for n in range(fine)]
    packages += [{"name": f"s{n}", "skip_reason": "not found"} for n in range(skipped)]
    packages += [{"name": f"h{n}", "version": "1.0", "vulns": [HOLE]} for n in range(holes)]
    return {"dependencies": packages, "fixes": []}


def test_what_is_known_and_what_was_skipped() -> None:
    assert audit.judge(document(10, 1)) == ([], ["s0"])
    assert audit.judge(document(10, 0, 1)) == (["h0 1.0: PYSEC-2026-1, fixed in 1.1"], [])
    for nothing in ({}, document(0, 0), document(0, 100), document(10, 10)):
        assert audit.judge(nothing) is None


@pytest.mark.parametrize(
    ("answers", "ci", "code", "said"),
    [
        ([document(9, 0)], "", 0, ""),
        ([document(9, 0, 1)], "", 1, "vulnerable: h0 1.0"),
        ([{}, document(9, 0, 1)], "", 1, "vulnerable: h0 1.0"),  # the second database is asked
        ([document(0, 9), {}], "", 0, "NOT AUDITED"),
        ([document(0, 9), {}], "true", 1, "NOT AUDITED"),
    ],
)
def test_exit_codes(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    answers: list[dict[str, Any]],
    ci: str,
    code: int,
    said: str,
) -> None:
    left = iter(answers)
    monkeypatch.setattr(audit, "ask", lambda _database: next(left))
    monkeypatch.setenv("CI", ci)
    assert audit.main() == code
    assert said in (errors := capsys.readouterr().err)
    assert bool(said) == bool(errors)
