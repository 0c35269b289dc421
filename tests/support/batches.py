"""Inputs and outputs of batches."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from services.cli.batch_input import BatchInput
from services.cli.connection import Connection
from services.cli.question import Question

TEMPLATE = Question(prompt="", gateway=Connection(address="127.0.0.1:1"), timeout_seconds=30)


def write_prompts(file: Path, lines: Sequence[Mapping[str, Any]]) -> Path:
    """Write an input."""
    file.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return file


def numbered(count: int) -> list[dict[str, str]]:
    """Return so many prompts, p0 and on, under the ids a0 and on."""
    return [{"id": f"a{number}", "prompt": f"p{number}"} for number in range(count)]


def batch_of(file: Path, lines: Sequence[Mapping[str, Any]], template: Question = TEMPLATE) -> BatchInput:
    """Write an input and read it."""
    return BatchInput.read(write_prompts(file, lines), template)


def kept_lines(file: Path) -> list[dict[str, Any]]:
    """Return what an output says."""
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def kept_ids(file: Path) -> list[str]:
    """Return the ids in an output, in their order."""
    return [line["id"] for line in kept_lines(file)]


def names_in(folder: Path) -> list[str]:
    """Return what is in a folder, hidden files too."""
    return sorted(os.listdir(folder))


def cut(file: Path, count: int) -> None:
    """Cut bytes off a file's end."""
    os.truncate(file, file.stat().st_size - count)
