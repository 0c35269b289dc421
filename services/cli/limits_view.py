"""How a watched limiter is shown: tables that are drawn in place on a terminal, a line for each change elsewhere, objects for scripts."""

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable
from datetime import UTC, datetime
from types import TracebackType
from typing import Self

from google.protobuf.json_format import MessageToDict
from rich.console import Console, RenderableType
from rich.live import Live

from ensemble.v1 import limiter_service_pb2
from services.cli.ending import print_json
from services.cli.limits_table import limiter_words, model_line, state_view, tenant_line
from services.cli.terminal_text import visible

State = Callable[[], limiter_service_pb2.GetStateResponse]


class View(ABC):
    """Shows the state after each change; words about the connection go to standard error."""

    def __init__(self, state: State, address: str) -> None:
        """Take what tells the whole state as of now."""
        self._state = state
        self._address = address

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        return None

    @abstractmethod
    def show(self, change: limiter_service_pb2.WatchStateResponse) -> None:
        """Show a change that the state now holds."""
        ...

    def say(self, word: str) -> None:
        """Say something about the connection."""
        sys.stderr.write(visible(word) + "\n")
        sys.stderr.flush()


class JsonLines(View):
    """After each change the whole state as one object, so that every line stands by itself."""

    def show(self, change: limiter_service_pb2.WatchStateResponse) -> None:  # noqa: ARG002 - the state holds it
        """Print the state."""
        print_json(MessageToDict(self._state(), preserving_proto_field_name=True, always_print_fields_with_no_presence=True))


class ChangeLines(View):
    """A line for each model and tenant that changed, with the time of day in UTC."""

    def __init__(self, state: State, address: str, *, wall: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        super().__init__(state, address)
        self._wall = wall
        self._headline: object = None

    def show(self, change: limiter_service_pb2.WatchStateResponse) -> None:
        """Print what changed."""
        lines = [*map(model_line, change.models), *map(tenant_line, change.tenants)]
        headline = (change.config_version, change.degraded, change.HasField("learning_for"))
        if headline != self._headline:
            self._headline = headline
            lines.insert(0, "; ".join([f"limiter {self._address}", *limiter_words(self._state())]))
        at = self._wall().strftime("%H:%M:%SZ")
        for line in lines:
            # Nothing that a server says shall look like a line of its own.
            sys.stdout.write(f"{at} {visible(line)}".replace("\n", "\ufffd") + "\n")
        sys.stdout.flush()


class LiveView(View):
    """Tables on a terminal; times run down between the changes."""

    def __init__(self, state: State, address: str, console: Console) -> None:
        super().__init__(state, address)
        self._said = "waiting for the state"
        self._live = Live(console=console, refresh_per_second=4, get_renderable=self._view)

    def __enter__(self) -> Self:
        self._live.start(refresh=True)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._live.stop()

    def show(self, change: limiter_service_pb2.WatchStateResponse) -> None:  # noqa: ARG002 - the state holds it
        """Draw the state anew."""
        self._said = ""
        self._live.refresh()

    def say(self, word: str) -> None:
        """Say it above the tables until the next change."""
        self._said = word
        self._live.refresh()

    def _view(self) -> RenderableType:
        return state_view(self._state(), self._address, said=self._said)


def view_of(state: State, address: str, *, as_json: bool, console: Console) -> View:
    """Return the view that suits whoever looks."""
    if as_json:
        return JsonLines(state, address)
    return LiveView(state, address, console) if console.is_terminal else ChangeLines(state, address)
