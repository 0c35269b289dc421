"""The page on TLS against the code: its commands make certificates that do, and what it says of settings and options is so."""

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from services.chassis.configuration import ConfigurationError, load_configuration
from services.chassis.configuration.schema_keys import known_keys
from services.chassis.listening import Exposure, refuse_openness
from services.chassis.renewed_channel import LONGEST_CONNECTING_SECONDS
from services.chassis.server import ServerSettings
from services.cli.options import GatewayOptions
from tests.support.certificates import HERE, Authority, CertificateFolder

PAGE = (Path(__file__).parents[2] / "docs" / "tls.md").read_text("utf-8")


def snippets(kind: str) -> list[str]:
    """Return the page's code of a kind."""
    return re.findall(rf"```{kind}\n(.*?)```", PAGE, flags=re.DOTALL)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Run the page's commands in a folder."""
    commands = snippets("sh")[-1]
    assert "openssl req -x509" in commands
    subprocess.run(["sh", "-euc", commands], cwd=tmp_path, check=True, capture_output=True, timeout=60)
    return tmp_path


def test_the_commands_make_certificates_that_will_do(folder: Path) -> None:
    """With the configuration that stands below them."""
    (folder / "ensemble.yaml").write_text(snippets("yaml")[-1])
    configuration = load_configuration(environ={}, folder=folder)
    assert configuration.tls is not None


def test_the_whole_configuration_is_one(tmp_path: Path) -> None:
    """Every setting that the page shows exists, and the page shows every setting."""
    authority = Authority()
    made = CertificateFolder.with_pair(tmp_path / "certs", authority.issue(*HERE), authority.pem)
    files = {"certificate.pem": ("service.pem", "gateway.pem"), "key.pem": ("service.key", "gateway.key"), "ca.pem": ("ca.pem", "callers.pem")}
    for there, names in files.items():
        for name in names:
            made.put_file(name, (made.folder / there).read_bytes())
    text = snippets("yaml")[0]
    (tmp_path / "ensemble.yaml").write_text(text)
    configuration = load_configuration(environ={}, folder=tmp_path)
    assert configuration.tls is not None
    assert configuration.tls.callers == ("gateway.internal", "spiffe://example/orchestrator")
    shown = yaml.safe_load(text)
    assert set(shown["tls"]) == set(known_keys(("tls",)))
    assert set(shown["gateway"]["tls"]) == set(known_keys(("gateway", "tls")))


def test_figures_and_words_are_those_of_the_code() -> None:
    """Limits, the time for a renewal, and how a refusal begins."""
    settings = ServerSettings(listen="127.0.0.1:0")
    assert f"{settings.max_concurrent_streams} calls under way" in PAGE
    assert f"{settings.handshake_seconds:g} s until" in PAGE
    assert f"after {LONGEST_CONNECTING_SECONDS:g} s at the latest" in PAGE
    exposure = Exposure(section="gateway", listen="0.0.0.0:50051", encrypted=False, authenticated=False)
    with pytest.raises(ConfigurationError) as caught:
        refuse_openness(exposure)
    (refusal,) = [line.partition("…")[0].strip() for line in PAGE.splitlines() if line.startswith("gateway.listen: ")]
    assert str(caught.value).startswith(refusal)


def test_every_option_is_on_the_page() -> None:
    """Of TLS and of the key."""
    for name in GatewayOptions.__dataclass_fields__:
        assert f"--{name.replace('_', '-')}" in PAGE
