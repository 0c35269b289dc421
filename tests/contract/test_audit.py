"""What `make audit` makes of what pip-audit reports: found, looked up, and not known are three things."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from scripts.audit import Audit, report_of, verdict

ROOT = Path(__file__).resolve().parents[2]
GOOD = {"name": "alpha", "version": "1.0", "vulns": []}
BAD = {"name": "beta", "version": "2.0", "vulns": [{"id": "CVE-1", "fix_versions": ["2.1", "3.0"], "aliases": [], "description": "…"}]}
UNFIXED = {"name": "beta", "version": "2.0", "vulns": [{"id": "CVE-2", "fix_versions": [], "aliases": [], "description": "…"}]}
SKIPPED = {"name": "gamma", "skip_reason": "Dependency not found and could not be audited: gamma (3.0)"}


def _audit(*reports: list[dict[str, Any]]) -> Audit:
    audit = Audit("some.txt")
    for dependencies in reports:
        audit.add({"dependencies": dependencies, "fixes": []})
    return audit


@pytest.mark.parametrize(
    ("reports", "said", "failed", "failed_if_required"),
    [
        ([[GOOD]], ["audited: some.txt: 1 packages, no known vulnerabilities"], False, False),
        ([[GOOD, BAD]], ["some.txt: beta 2.0 has CVE-1; fixed in 2.1, 3.0", "audited: some.txt: 2 packages, 1 known vulnerabilities"], True, True),
        ([[UNFIXED]], ["some.txt: beta 2.0 has CVE-2", "audited: some.txt: 1 packages, 1 known vulnerabilities"], True, True),
        ([[SKIPPED]], ["NOT AUDITED: some.txt: no advisory could be reached for any of its 1 packages"], False, True),
        ([[]], ["NOT AUDITED: some.txt: no advisory could be reached for any of its unknown number of packages"], False, True),
        ([[GOOD, SKIPPED]], ["PARTLY AUDITED: some.txt: 1 of 2 packages; not gamma"], False, True),
        ([[BAD, SKIPPED]], ["some.txt: beta 2.0 has CVE-1; fixed in 2.1, 3.0", "PARTLY AUDITED: some.txt: 1 of 2 packages; not gamma"], True, True),
        # What one source leaves out another may know.
        (
            [[GOOD, SKIPPED], [GOOD, {"name": "gamma", "version": "3.0", "vulns": []}]],
            ["audited: some.txt: 2 packages, no known vulnerabilities"],
            False,
            False,
        ),
        ([[SKIPPED], []], ["NOT AUDITED: some.txt: no advisory could be reached for any of its 1 packages"], False, True),
        (
            [[BAD], [UNFIXED]],
            ["some.txt: beta 2.0 has CVE-1; fixed in 2.1, 3.0", "some.txt: beta 2.0 has CVE-2", "audited: some.txt: 1 packages, 2 known vulnerabilities"],
            True,
            True,
        ),
    ],
)
def test_reports_are_judged(reports: list[list[dict[str, Any]]], said: list[str], failed: bool, failed_if_required: bool) -> None:
    """A vulnerability fails always; what could not be looked up is said, and fails where the audit is required."""
    assert verdict(_audit(*reports), required=False) == (said, failed)
    assert verdict(_audit(*reports), required=True) == (said, failed_if_required)


def test_few_of_many_are_named() -> None:
    """Of packages that were not looked up, so many are named as fit into a line."""
    (said,), failed = verdict(_audit([GOOD, *({"name": f"left{number:02}", "skip_reason": "…"} for number in range(20))]), required=False)
    assert said.endswith("not left00, left01, left02, left03, left04, left05, left06, left07, …")
    assert not failed


@pytest.mark.parametrize("output", ["", "Traceback (most recent call last):", "[]", '{"fixes": []}', "null"])
def test_no_report_is_an_empty_one(output: str) -> None:
    """Where a source cannot be reached pip-audit may end without any, and nothing was looked up."""
    assert report_of(output) == {"dependencies": []}


def test_a_report_is_read() -> None:
    """As pip-audit writes it."""
    assert report_of('{"dependencies": [{"name": "alpha", "version": "1.0", "vulns": []}], "fixes": []}')["dependencies"][0]["name"] == "alpha"


def test_a_wish_that_is_none_is_refused() -> None:
    """AUDIT=require, for one, would otherwise pass what was never looked up."""
    ended = subprocess.run([sys.executable, "scripts/audit.py"], cwd=ROOT, env={"AUDIT": "require"}, check=False, capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (1, "AUDIT is required, or not set\n")


def test_a_file_that_cannot_be_audited_is_loud(tmp_path: Path) -> None:
    """Nothing is looked up in a file that is not there; that is said, and is a failure where the audit is required."""
    for wish, code in (("", 0), ("required", 1)):
        command = [sys.executable, "scripts/audit.py", str(tmp_path / "none.txt")]
        ended = subprocess.run(command, cwd=ROOT, env={"AUDIT": wish, "HOME": str(tmp_path)}, check=False, capture_output=True, text=True)
        assert ended.returncode == code, ended.stdout
        assert ended.stdout.startswith("NOT AUDITED: ")
