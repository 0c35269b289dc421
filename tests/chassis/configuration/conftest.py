"""Loading from text: what nearly every test of the configuration does."""

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from services.chassis.configuration import Configuration, ConfigurationError, Problem, load_configuration

Load = Callable[..., Configuration]
Refused = Callable[..., tuple[Problem, ...]]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Load what a text and variables say, in a folder of its own."""

    def from_text(text: str = "", environ: Mapping[str, str] | None = None, **more: object) -> Configuration:
        (tmp_path / "ensemble.yaml").write_text(text, encoding="utf-8")
        return load_configuration(environ=environ or {}, folder=tmp_path, **more)  # type: ignore[arg-type]  # Passed on as they came.

    return from_text


@pytest.fixture
def refused(load: Load) -> Refused:
    """Load what cannot be loaded; return what is wrong with it."""

    def from_text(text: str = "", environ: Mapping[str, str] | None = None, **more: object) -> tuple[Problem, ...]:
        with pytest.raises(ConfigurationError) as caught:
            load(text, environ, **more)
        return caught.value.problems

    return from_text
