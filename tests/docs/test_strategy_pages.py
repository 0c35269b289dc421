"""Each strategy has a page that says what is so: its profile loads, its options are all there, with their defaults, and its links lead somewhere."""

import re
from pathlib import Path

import pytest
from pydantic_core import PydanticUndefined

from ensemble.v1 import strategy_options_pb2
from services.chassis.configuration import load_configuration, plain_parameters
from services.orchestrator.registry import STRATEGIES, problems_of

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "strategies"
INDEX = (FOLDER / "README.md").read_text(encoding="utf-8")
SECTIONS = ["When to use it", "What it costs", "Options", "Evidence"]
MODELS = """
providers:
  mine: {kind: openai, base_url: http://127.0.0.1:9/v1}
models:
  careful: {provider: mine, name: careful}
  quick: {provider: mine, name: quick}
  other: {provider: mine, name: other}
"""


def _page(name: str) -> str:
    return (FOLDER / f"{name}.md").read_text(encoding="utf-8")


def _rows(text: str) -> dict[str, str]:
    """Return the second cell of each row of the tables whose first cell is a name in code."""
    return dict(re.findall(r"^\| `(\w+)` \| ([^|]*) \|", text, re.MULTILINE))


def test_there_is_a_page_for_each_strategy_and_for_nothing_else() -> None:
    """Pages and registry name the same, and the index leads to all of them."""
    pages = {path.stem for path in FOLDER.glob("*.md")} - {"README"}
    assert pages == set(STRATEGIES)
    assert set(re.findall(r"^\| .* \| \[(\w+)\]\(\1\.md\) \|", INDEX, re.MULTILINE)) == pages


@pytest.mark.parametrize("name", sorted(STRATEGIES))
def test_a_page_says_when_what_and_why(name: str) -> None:
    """Each has the same sections, in the same order."""
    assert re.findall(r"^# (.*)$", _page(name), re.MULTILINE) == [name]
    assert re.findall(r"^## (.*)$", _page(name), re.MULTILINE) == SECTIONS


@pytest.mark.parametrize("name", sorted(STRATEGIES))
def test_a_pages_profile_loads(name: str, tmp_path: Path) -> None:
    """Put under a configuration with its models, it is one that the strategy takes."""
    (yaml,) = re.findall(r"^```yaml\n(.*?)^```$", _page(name), re.MULTILINE | re.DOTALL)
    (tmp_path / "ensemble.yaml").write_text(MODELS + yaml, encoding="utf-8")
    profile = load_configuration(environ={}, folder=tmp_path).profiles["default"]
    assert profile.strategy == name
    assert problems_of(name, plain_parameters(profile.parameters)) == ()


@pytest.mark.parametrize("name", sorted(STRATEGIES))
def test_a_page_names_every_option_with_its_default(name: str) -> None:
    """The table has the options that the strategy takes and no other; a plain default is the one in the code."""
    fields = STRATEGIES[name].parameters.model_fields
    rows = _rows(_page(name))
    assert set(rows) == set(fields)
    for option, field in fields.items():
        if field.default not in {None, PydanticUndefined, ""}:
            assert rows[option] == (str(field.default).lower() if isinstance(field.default, bool) else str(field.default))


def test_the_index_names_every_common_option() -> None:
    """What every strategy understands is what the message has."""
    names = set(strategy_options_pb2.StrategyOptions.DESCRIPTOR.fields_by_name)
    assert set(_rows(INDEX)) == names | {"max_cost"}


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.md")), ids=lambda path: path.stem)
def test_links_lead_somewhere(path: Path) -> None:
    """Each relative link names a file that is there."""
    for target in re.findall(r"\]\((?!http)([^)#]+)", path.read_text(encoding="utf-8")):
        assert (path.parent / target).is_file(), target
