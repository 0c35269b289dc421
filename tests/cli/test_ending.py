"""How commands end."""

import pytest
import typer

from services.cli.ending import ending
from services.cli.exit_codes import CommandError, ExitCode


def test_a_bug_is_not_dressed_up() -> None:
    """It keeps its traceback, with or without JSON."""
    for as_json in (False, True):
        with pytest.raises(ZeroDivisionError), ending(as_json=as_json):
            raise ZeroDivisionError


def test_success_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """And goes on behind the command."""
    with ending():
        pass
    assert capsys.readouterr() == ("", "")


def test_every_line_of_an_error_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    """Without escapes of whoever wrote it."""
    with pytest.raises(typer.Exit) as caught, ending():
        raise CommandError("one\ntwo \x1b[31m", ExitCode.UNAVAILABLE)
    assert caught.value.exit_code == 3
    assert capsys.readouterr() == ("", "one\ntwo \ufffd[31m\n")
