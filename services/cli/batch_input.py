"""The input of a batch: a file of JSON objects, one a line, read once to find every mistake and once more to ask.

Between the two only ids and hashes are held, never a prompt.
"""

import codecs
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from services.cli.batch_line import LineRefused, Prompt, prompt_of
from services.cli.exit_codes import CommandError, ExitCode
from services.cli.gateway_client import MAX_MESSAGE_BYTES
from services.cli.question import Question

MOST_PROBLEMS = 20
_HASH_BYTES = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchInput:
    """A file without mistakes."""

    file: Path
    template: Question
    """What holds for every line that does not say otherwise."""
    places: Mapping[str, int]
    """Places of the prompts, counted from 0, by their ids."""
    hashes: bytes
    """SHA-256 of each prompt, one behind the other."""

    @classmethod
    def read(cls, file: Path, template: Question) -> Self:
        """Read the whole file. Raises `CommandError` with its mistakes, up to `MOST_PROBLEMS` of them."""
        places: dict[str, int] = {}
        hashes = bytearray()
        problems: dict[str, str] = {}
        # What the options say is wrong in every line, and is told once.
        template.request()
        try:
            for number, content in _lines(file):
                try:
                    prompt = prompt_of(content, number, template)
                    if prompt.id in places:
                        raise LineRefused(f"id: {prompt.id} stands above already")
                except LineRefused as refused:
                    problems[f"line {number}"] = str(refused)
                    if len(problems) == MOST_PROBLEMS:
                        break
                else:
                    places[prompt.id] = len(places)
                    hashes += bytes.fromhex(prompt.sha256)
        except OSError as error:
            raise CommandError(f"{file}: {error.strerror}", ExitCode.WRONG) from None
        if problems:
            raise _refused(file, problems)
        if not places:
            raise CommandError(f"{file}: holds no prompt", ExitCode.WRONG)
        return cls(file=file, template=template, places=places, hashes=bytes(hashes))

    def __len__(self) -> int:
        return len(self.places)

    def sha256(self, place: int) -> str:
        """Return the hash of one prompt."""
        return self.hashes[place * _HASH_BYTES : (place + 1) * _HASH_BYTES].hex()

    def prompts(self, wanted: Callable[[int], bool]) -> Generator[Prompt, None, None]:
        """Yield the prompts at the places that are wanted. Raises `CommandError` where the file is not as it was read."""
        place = -1
        for place, (number, content) in enumerate(_lines(self.file)):
            if place < len(self) and not wanted(place):
                continue
            try:
                prompt = prompt_of(content, number, self.template)
            except LineRefused:
                raise self._changed(number) from None
            if self.places.get(prompt.id) != place or self.sha256(place) != prompt.sha256:
                raise self._changed(number)
            yield prompt
        if place + 1 < len(self):
            raise CommandError(f"{self.file}: lost lines while the batch ran", ExitCode.WRONG)

    def _changed(self, number: int) -> CommandError:
        return CommandError(f"{self.file}: line {number} changed while the batch ran", ExitCode.WRONG)


def _lines(file: Path) -> Iterator[tuple[int, bytes]]:
    """Yield each line that is not blank, with its number; of one that is too long only as much as shows that it is."""
    with file.open("rb") as opened:
        number = 0
        while line := opened.readline(MAX_MESSAGE_BYTES + 1):
            number += 1
            rest = line
            while len(rest) > MAX_MESSAGE_BYTES and not rest.endswith(b"\n"):
                rest = opened.readline(MAX_MESSAGE_BYTES + 1)
            content = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
            if content.strip():
                yield number, content


def _refused(file: Path, problems: Mapping[str, str]) -> CommandError:
    more = ", and perhaps more" if len(problems) == MOST_PROBLEMS else ""
    told = [f"{file}: {len(problems)} line{'' if len(problems) == 1 else 's'} cannot be asked{more}; nothing was"]
    told += [f"  {where}: {words}" for where, words in problems.items()]
    return CommandError("\n".join(told), ExitCode.WRONG, violations=problems)
