"""The page about load says what is so: its configuration is the default, and it leaves out neither a reason nor a measure."""

import re
from pathlib import Path

from services.chassis import _semconv as semconv
from services.chassis.configuration import load_configuration
from services.gateway.admission import Refusal

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "load.md").read_text(encoding="utf-8")


def test_the_configuration_is_the_default_and_names_every_key(tmp_path: Path) -> None:
    """Whoever copies it changes nothing."""
    (block,) = re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    (tmp_path / "ensemble.yaml").write_text(block, encoding="utf-8")
    default = load_configuration(environ={}, folder=ROOT / "docs").gateway.load
    assert load_configuration(environ={}, folder=tmp_path).gateway.load == default
    assert re.findall(r"^    (\w+):", block, re.MULTILINE) == list(default.model_dump(by_alias=True))


def test_what_is_measured_is_named() -> None:
    """Both measures, and every reason of a refusal."""
    told = set(re.findall(r"`([\w.]+)`", PAGE.split("\n## What to watch\n")[1]))
    assert told == {"telemetry.endpoint", semconv.ENSEMBLE_ADMISSION_WAIT, semconv.ENSEMBLE_ADMISSION_REFUSALS, semconv.ENSEMBLE_REASON, *Refusal}
