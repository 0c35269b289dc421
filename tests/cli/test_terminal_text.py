"""Text of models on a terminal."""

import contextlib
import io

from services.cli.terminal_text import prepare_streams, visible, write_answer


class _Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


def test_no_escape_sequence_reaches_a_terminal() -> None:
    """Controls and direction marks become visible; tab and newline stay."""
    assert visible("a\x1b[2Jb\x07\u202ec\td\n\x9b") == "a\ufffd[2Jb\ufffd\ufffdc\td\n\ufffd"
    terminal = _Terminal()
    write_answer("x\x1b]0;title\x07", terminal)
    assert "\x1b" not in terminal.getvalue()


def test_a_file_gets_the_text_as_it_is() -> None:
    """Into a file or a pipe nothing is changed, line ends included."""
    pipe = io.StringIO()
    write_answer("x\x1b[0m\r\n", pipe)
    assert pipe.getvalue() == "x\x1b[0m\r\n"


def test_lines_may_end_either_way() -> None:
    """A carriage return alone would let text overwrite what stands before it."""
    assert visible("a\r\nb\rc") == "a\nb\ufffdc"


def test_what_no_encoding_carries_is_replaced() -> None:
    """Halves of characters come from file names that are no UTF-8."""
    assert visible("a\udcffb") == "a\ufffdb"


def test_streams_take_any_text_once_prepared() -> None:
    """What their encoding lacks is replaced; one that is none of the process's own is left alone."""
    written = io.BytesIO()
    narrow = io.TextIOWrapper(written, encoding="ascii")
    with contextlib.redirect_stdout(narrow), contextlib.redirect_stderr(io.StringIO()):
        prepare_streams()
        write_answer("Zürich", narrow)
    assert written.getvalue() == b"Z?rich"
