"""The page about retries says what is so: its configuration loads, and its defaults are those of the code."""

import re
from pathlib import Path

from ensemble.v1 import gateway_service_pb2
from services.chassis.configuration import load_configuration
from services.gateway.event_log import MOST_KEPT_BYTES
from services.gateway.replays import RENEWALS

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "retries.md").read_text(encoding="utf-8")


def test_the_configuration_loads(tmp_path: Path) -> None:
    """As it stands, with every key in force."""
    ((text),) = re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    (tmp_path / "ensemble.yaml").write_text(text, encoding="utf-8")
    configuration = load_configuration(environ={"REDIS_PASSWORD": "x"}, folder=tmp_path)
    assert (configuration.gateway.idempotency.store, configuration.gateway.cache.store) == ("redis", "redis")
    cache = configuration.profiles["single"].cache
    assert cache is not None
    assert cache.ttl_seconds == 3600


def test_every_key_is_told_with_its_default() -> None:
    """Of both sections, as `check-config` prints them."""
    section = load_configuration(environ={}, folder=ROOT / "docs").gateway.model_dump(by_alias=True)
    told = dict(re.findall(r"^\| `gateway\.(\w+\.\w+)` \| (\S+) \|", PAGE, re.MULTILINE))
    assert told == {f"{name}.{key}": str(value) for name in ("idempotency", "cache") for key, value in section[name].items()}


def test_figures_are_those_of_the_code() -> None:
    """The reader's allowance, the renewals, and the window of the contract."""
    assert f"more than {MOST_KEPT_BYTES >> 20} MiB behind" in PAGE
    assert (RENEWALS, "renews it three times in that time" in PAGE) == (3, True)
    assert "request_id" in gateway_service_pb2.GenerateRequest.DESCRIPTOR.fields_by_name
    assert "10 minutes unless configured" in PAGE
