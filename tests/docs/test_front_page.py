"""The README, the page for those who change the code, and the pages in `docs` name what is there."""

import re
from pathlib import Path

import pytest

from services.chassis.configuration import load_configuration

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
NEXT = "\n  "
TARGETS = set(re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))


def test_the_configuration_loads(tmp_path: Path) -> None:
    """The README's example, with its secret in the environment."""
    (text,) = re.findall(r"^```yaml\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    (tmp_path / "ensemble.yaml").write_text(text, encoding="utf-8")
    configuration = load_configuration(environ={"MY_KEY": "x"}, folder=tmp_path)
    assert "team-a" in configuration.tenants
    assert configuration.profiles["default"].quorum == 2


def test_what_the_package_brings_can_be_taken_away(tmp_path: Path) -> None:
    """By the words that the README has for it, beside its example; then nothing is left but what stands in the file."""
    (text,) = re.findall(r"^```yaml\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    taken = re.findall(r"`(models|profiles): \{(.*?)\}`", README)
    assert [section for section, _ in taken] == ["models", "profiles"]
    for section, entries in taken:
        text = text.replace(f"{section}:\n", f"{section}:\n  {entries.replace(', ', NEXT)}\n", 1)
    (tmp_path / "ensemble.yaml").write_text(text, encoding="utf-8")
    configuration = load_configuration(environ={"MY_KEY": "x"}, folder=tmp_path)
    assert set(configuration.models) == {"careful", "quick"}
    assert set(configuration.profiles) == {"default"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    """Those to files, seen from the page."""
    targets = [target for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")) if "://" not in target]
    assert [target for target in targets if not (page.parent / target).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_targets_of_make_are_there(page: Path) -> None:
    """Whatever a page tells to make can be made."""
    named = set(re.findall(r"(?:`|^)make ([a-z][a-z-]*)", page.read_text(encoding="utf-8"), re.MULTILINE))
    assert named - TARGETS == set()


def test_every_page_is_linked_from_the_front() -> None:
    """Whoever reads the README finds each page of `docs`."""
    linked = set(re.findall(r"\((docs/[^)#]+)", README))
    assert {str(page.relative_to(ROOT)) for page in (ROOT / "docs").glob("*.md")} <= linked
