"""The page about errors is what the table says, its programs are those that are tried, and the one in Python runs here."""

import asyncio
import os
import re
import subprocess
import sys
from pathlib import Path

import grpc
import pytest

from scripts.error_page import PAGE, SNIPPETS, PageError, main, parts_of, refreshed
from scripts.grpc_errors import GRPC_ERRORS
from services.chassis.error_table import TABLE
from services.chassis.errors import QuotaExhausted
from services.chassis.status import to_status
from services.gateway.app import application
from tests.support.fake_orchestrator import FakeLimiter, FakeOrchestrator, serve_fakes
from tests.support.gateways import configured

ROOT = PAGE.parents[1]
FOLDER = PAGE.parent / "snippets" / "errors"
TEXT = PAGE.read_text(encoding="utf-8")
PROGRAM = FOLDER / "errors.py"


def _checked(*arguments: str) -> tuple[int, str]:
    result = subprocess.run([sys.executable, "-m", "scripts.error_page", "--check", *arguments], cwd=ROOT, check=False, capture_output=True, text=True)
    return result.returncode, result.stdout


def test_the_page_is_fresh() -> None:
    """As `make docs` writes it now."""
    assert _checked() == (0, "")
    assert refreshed(TEXT, parts_of(FOLDER)) == TEXT


def test_a_page_that_is_not_fresh_is_found_and_written_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What stands around the generated parts stays as it was."""
    copies = tmp_path / "snippets" / "errors"
    copies.mkdir(parents=True)
    for file, _ in SNIPPETS.values():
        (copies / file).write_text((FOLDER / file).read_text(encoding="utf-8"), encoding="utf-8")
    page = tmp_path / "errors.md"
    stale = TEXT.replace("| INTERNAL |", "| EXTERNAL |").replace("# What a caller", "# Mine. What a caller")
    page.write_text(stale, encoding="utf-8")
    assert _checked(str(page)) == (1, "stale: errors.md; run make docs\n")
    monkeypatch.setattr(sys, "argv", ["error_page.py", str(page)])
    assert main() == 0
    assert page.read_text(encoding="utf-8") == TEXT.replace("# What a caller", "# Mine. What a caller")
    assert _checked(str(page)) == (0, "")


@pytest.mark.parametrize("change", [("<!-- begin go -->", "<!-- begin rust -->"), ("<!-- end java -->", "")], ids=["an unknown part", "a part without end"])
def test_a_page_without_its_parts_is_refused(change: tuple[str, str]) -> None:
    """So that none is lost without a word."""
    with pytest.raises(PageError):
        refreshed(TEXT.replace(*change), parts_of(FOLDER))


@pytest.mark.parametrize("language", SNIPPETS)
def test_each_program_stands_on_the_page(language: str) -> None:
    """Line for line, but for what is meant for our own linter."""
    file, _ = SNIPPETS[language]
    lines = [line for line in (FOLDER / file).read_text(encoding="utf-8").splitlines() if not line.startswith("# ruff:")]
    assert "\n".join(lines) in TEXT
    assert "# ruff:" not in TEXT


def test_every_error_and_every_link_is_there() -> None:
    """Each row has its section, which the overview leads to; gRPC's own have their rows."""
    titles = re.findall(r"^#+ (.*)$", TEXT, re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
    links = re.findall(r"\]\(#([^)]*)\)", TEXT)
    assert set(links) <= anchors
    assert len(links) == len(TABLE) + 1
    assert all(f"| `{row.text}` |" in TEXT for row in GRPC_ERRORS)


async def _said(*arguments: str) -> list[str]:
    """Run the program in Python as a reader would, and return what it says."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "error", str(PROGRAM), *arguments),
        env={**os.environ, "PYTHONPATH": str(ROOT / "protos")},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert (process.returncode, err.decode()) == (0, "")
    return out.decode().splitlines()


async def test_the_program_in_python_says_what_was_wrong() -> None:
    """A question without a prompt, a profile that does not exist, a quota that is used up, and an answer."""
    orchestrator = FakeOrchestrator()
    limiter = FakeLimiter()  # type: ignore[abstract]  # the RPCs it lacks answer UNIMPLEMENTED
    async with serve_fakes(orchestrator, limiter) as fakes, application(configured(fakes.address)) as server:
        assert await _said(server.address) == [
            "code: INVALID_ARGUMENT",
            "message: prompt: is required where there are no messages",
            "reason: INVALID_INPUT {}",
            "field: prompt is required where there are no messages",
        ]
        assert (await _said(server.address, "nope", "Hello"))[::2] == ["code: NOT_FOUND", "reason: NOT_FOUND {'kind': 'profile'}"]
        assert await _said(server.address, "", "Hello") == ["42"]
        status = to_status(QuotaExhausted("tenant/t/concurrency", "is reached", 1.5))
        orchestrator.refusal = (grpc.StatusCode.RESOURCE_EXHAUSTED, status.message, status.details)
        assert await _said(server.address, "", "Hello") == [
            "code: RESOURCE_EXHAUSTED",
            "message: is reached",
            "reason: QUOTA_EXHAUSTED {'subject': 'tenant/t/concurrency'}",
            "quota: tenant/t/concurrency is reached",
            "retry in: 0:00:01.500000",
        ]


async def test_the_program_in_python_tells_grpcs_own_errors_apart() -> None:
    """There is no reason where nobody listens."""
    async with serve_fakes(FakeOrchestrator(), FakeLimiter()) as fakes:  # type: ignore[abstract]  # as above
        address = fakes.address
    said = await _said(address)
    assert said[0] == "code: UNAVAILABLE"
    assert not any(line.startswith("reason") for line in said)
