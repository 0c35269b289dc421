"""Shows how far a batch is: a bar on a terminal, elsewhere a line every few seconds."""

import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from services.cli.batch_tally import Tally
from services.cli.receipt_table import plain

_LINE_SECONDS = 5.0


class BatchProgress:
    """Follows a tally, whose seconds it keeps; without a console nothing is shown."""

    def __init__(self, tally: Tally, console: Console | None, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._tally = tally
        self._console = console
        self._clock = clock
        self._began = self._last = clock()
        self._told = -1
        """How many had ended when a line said so."""
        self._bar: Progress | None = None
        if console is not None and console.is_terminal:
            columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}", markup=False), TimeRemainingColumn())
            self._bar = Progress(*columns, console=console)
            self._task = self._bar.add_task(tally.words(), total=tally.total, completed=tally.ended)

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._tally.seconds = self._clock() - self._began
        if self._bar is not None:
            self._update(self._bar)
            self._bar.stop()
        elif self._console is not None and error is None and self._told != self._tally.ended:
            self._say(self._console)

    def show(self) -> None:
        """Show what the tally says by now."""
        now = self._clock()
        self._tally.seconds = now - self._began
        if self._bar is not None:
            self._update(self._bar)
        elif self._console is not None and now - self._last >= _LINE_SECONDS:
            self._last = now
            self._say(self._console)

    def _update(self, bar: Progress) -> None:
        bar.update(self._task, completed=self._tally.ended, description=self._tally.words())

    def _say(self, console: Console) -> None:
        self._told = self._tally.ended
        console.print(plain(self._tally.words()), soft_wrap=True)
