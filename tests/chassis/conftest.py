"""What several tests of the chassis need."""

import logging
from collections.abc import Iterator

import pytest


@pytest.fixture
def restored_logs() -> Iterator[None]:
    """Leave the process's logging as it was before the test set it up anew."""
    root = logging.getLogger()
    handlers = list(root.handlers)
    levels = {name: logging.getLogger(name).level for name in ("", "ensemble", "services")}
    yield
    root.handlers[:] = handlers
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)
