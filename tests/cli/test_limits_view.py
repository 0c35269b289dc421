"""How a watched limiter is shown."""

import io
import json
from datetime import UTC, datetime

import pytest
from google.protobuf.duration_pb2 import Duration
from rich.console import Console

from ensemble.v1 import limiter_service_pb2 as pb
from ensemble.v1 import model_state_pb2 as states
from services.cli.limits_view import ChangeLines, JsonLines, LiveView, view_of

STATE = pb.GetStateResponse(models=[states.ModelState(model="a"), states.ModelState(model="b")], config_version=3)
NOON = datetime(2030, 1, 2, 12, 0, 0, tzinfo=UTC)


def test_a_line_for_each_that_changed(capsys: pytest.CaptureFixture[str]) -> None:
    """With the time of day; the limiter's own line comes first, and again only when it says something else."""
    view = ChangeLines(lambda: STATE, "host:1", wall=lambda: NOON)
    changed = pb.WatchStateResponse(models=[states.ModelState(model="b", in_flight=1)], config_version=3)
    view.show(changed)
    view.show(changed)
    view.show(pb.WatchStateResponse(tenants=[states.TenantState(tenant="t")], config_version=4))
    assert [line.split(";")[0] for line in capsys.readouterr().out.splitlines()] == [
        "12:00:00Z limiter host:1",
        "12:00:00Z model b: 1 in flight",
        "12:00:00Z model b: 1 in flight",
        "12:00:00Z limiter host:1",
        "12:00:00Z tenant t: 0 in flight",
    ]


@pytest.mark.parametrize("change", [{"degraded": True}, {"learning_for": Duration(seconds=1)}])
def test_trouble_of_the_store_is_a_line(change: dict[str, object], capsys: pytest.CaptureFixture[str]) -> None:
    """Although no model changed; a time that only runs down is no news."""
    view = ChangeLines(lambda: STATE, "host:1", wall=lambda: NOON)
    for response in (pb.WatchStateResponse(), pb.WatchStateResponse(**change), pb.WatchStateResponse(**change)):  # type: ignore[arg-type] # fields by name
        view.show(response)
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_a_name_cannot_look_like_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    """Nor does a control sequence reach the terminal."""
    ChangeLines(lambda: STATE, "host:1", wall=lambda: NOON).show(pb.WatchStateResponse(models=[states.ModelState(model="a\nmodel\x1b[31m b: 0")]))
    told = capsys.readouterr().out
    assert "12:00:00Z model a\ufffdmodel\ufffd[31m b: 0: 0 in flight" in told
    assert len(told.splitlines()) == 2


def test_each_object_is_the_whole_state(capsys: pytest.CaptureFixture[str]) -> None:
    """On a line of its own, with the keys that the command prints without --watch; words go to standard error."""
    view = JsonLines(lambda: STATE, "host:1")
    view.show(pb.WatchStateResponse())
    view.say("gone\x1b")
    told = capsys.readouterr()
    assert told.out.count("\n") == 1
    state = json.loads(told.out)
    assert ([model["model"] for model in state["models"]], state["config_version"], state["degraded"]) == (["a", "b"], "3", False)
    assert told.err == "gone\ufffd\n"


def test_the_tables_stand_still_on_a_terminal() -> None:
    """A word about the connection stands above them until the next change."""
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=100)
    with view_of(lambda: STATE, "host:1", as_json=False, console=console) as view:
        assert isinstance(view, LiveView)
        view.say("it is gone")
        assert "it is gone" in screen.getvalue()
        screen.truncate(0)
        view.show(pb.WatchStateResponse())
    assert "it is gone" not in screen.getvalue()
    assert "limiter host:1; configuration version 3" in screen.getvalue()
    assert "\x1b[?25h" in screen.getvalue()


def test_a_view_suits_whoever_looks() -> None:
    """Scripts get objects, files get lines."""
    console = Console(file=io.StringIO())
    assert isinstance(view_of(lambda: STATE, "", as_json=True, console=console), JsonLines)
    assert isinstance(view_of(lambda: STATE, "", as_json=False, console=console), ChangeLines)
