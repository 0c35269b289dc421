"""Text of models on a terminal."""

import io

from services.cli.terminal_text import visible, write_answer


class _Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


class _Latin(io.StringIO):
    encoding = "latin-1"


def test_no_escape_sequence_reaches_a_terminal() -> None:
    """Controls and direction marks become visible; tab and newline stay."""
    assert visible("a\x1b[2Jb\x07\u202ec\td\n\x9b") == "a\ufffd[2Jb\ufffd\ufffdc\td\n\ufffd"
    terminal = _Terminal()
    write_answer("x\x1b]0;title\x07", terminal)
    assert "\x1b" not in terminal.getvalue()


def test_a_file_gets_the_text_as_it_is() -> None:
    """Into a file or a pipe nothing is changed, but what its encoding lacks."""
    pipe = io.StringIO()
    write_answer("x\x1b[0m", pipe)
    assert pipe.getvalue() == "x\x1b[0m"
    latin = _Latin()
    write_answer("Zürich → Bern", latin)
    assert latin.getvalue() == "Zürich ? Bern"
