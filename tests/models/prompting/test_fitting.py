"""Texts are cut so that the prompt fits, and the room is shared fairly."""

import threading
import time
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from services.models.conversation import Message, Role
from services.models.prompting.candidate_block import candidate_block
from services.models.prompting.delimiters import unescape
from services.models.prompting.fitting import LEAST_TOKENS, THREADED_CHARACTERS, fair_shares, fitted, input_limit, made_aside, shown_texts, truncate
from services.models.prompting.layout import task_layout
from services.models.token_estimates import estimate_messages, estimate_text

pieces = st.text(alphabet=st.one_of(st.sampled_from("abc <\\\n7"), st.characters(exclude_categories=["Cs"])), min_size=1, max_size=60)
texts = st.builds(lambda piece, times: piece * times, pieces, st.integers(1, 60))
wants = st.lists(st.integers(0, 3000), min_size=1, max_size=8)


@given(pieces, st.integers(1, 300))
def test_cut_is_marked_and_within_the_limit(text: str, limit: int) -> None:
    """A cut text keeps at most the limit, ends at a whole character and says how much is missing; a short one is untouched."""
    cut = truncate(text, limit)
    if len(text.encode()) <= limit:
        assert cut == text
        return
    kept, mark = cut.rsplit("\n[cut here: ", 1)
    assert len(kept.encode()) <= limit
    assert text.startswith(kept)
    assert mark == f"{len(text.encode()) - len(kept.encode())} bytes left out]"


@given(wants, st.integers(-100, 10_000))
def test_shares_are_fair(wanted: list[int], limit: int) -> None:
    """Nobody gets more than he wants, nor less than the least; who is cut has as much as anybody else who is, and no less than anybody who is not."""
    shares = fair_shares(wanted, limit)
    assert all(min(want, LEAST_TOKENS) <= share <= want for want, share in zip(wanted, shares, strict=True))
    cut = [share for want, share in zip(wanted, shares, strict=True) if share < want]
    assert not cut or max(cut) - min(cut) <= 1
    assert all(share <= min(cut) for want, share in zip(wanted, shares, strict=True) if cut and share == want and share > LEAST_TOKENS)


@given(wants, st.integers(0, 10_000))
def test_shares_fit_and_waste_nothing(wanted: list[int], limit: int) -> None:
    """Together they stay within the limit wherever the least shares do, and use it up where more is wanted."""
    shares = fair_shares(wanted, limit)
    least = sum(min(want, LEAST_TOKENS) for want in wanted)
    assert sum(shares) <= max(limit, least)
    assert sum(shares) >= min(limit, sum(wanted))


def test_short_texts_leave_their_rest_to_long_ones() -> None:
    """Of 1000 tokens, 100 and 200 are all that two want; the third has the rest."""
    assert fair_shares([5000, 100, 200], 1000) == (700, 100, 200)


@given(st.lists(texts, min_size=1, max_size=5), st.integers(-50, 2500), st.integers(256, 4096))
def test_shown_texts_keep_both_limits(bodies: list[str], token_limit: int, byte_limit: int) -> None:
    """Each stays within the byte limit, all together within the token limit, wherever 64 tokens for each do; whole texts are untouched."""
    shown = shown_texts(bodies, byte_limit=byte_limit, token_limit=token_limit)
    whole = shown_texts(bodies, byte_limit=byte_limit)
    assert sum(map(estimate_text, shown)) <= max(token_limit, sum(min(estimate_text(body), LEAST_TOKENS) for body in whole))
    for body, one, uncut in zip(bodies, shown, whole, strict=True):
        kept, _, mark = unescape(one).partition("\n[cut here: ")
        assert one == uncut or mark
        assert len(kept.encode()) <= max(byte_limit, len(body.encode())) if not mark else len(kept.encode()) <= byte_limit


@given(st.lists(texts, min_size=1, max_size=4), st.integers(700, 4000))
def test_a_prompt_fits(bodies: list[str], input_tokens: int) -> None:
    """The whole prompt, frame and all, is estimated at the limit at most."""

    def build(shown: Sequence[str]) -> tuple[Message, ...]:
        return task_layout("Judge.", material=(candidate_block(shown, "n0nce"),), request="Answer.")

    messages = fitted(build, bodies, byte_limit=1 << 20, input_tokens=input_tokens)
    assert estimate_messages(messages) <= input_tokens
    assert fitted(build, bodies, byte_limit=1 << 20, input_tokens=None) == build(shown_texts(bodies, byte_limit=1 << 20))


def test_what_fits_is_not_cut() -> None:
    """With room enough the prompt is the same as without a limit; with less, a cut is marked and takes no more than it must."""

    def build(shown: Sequence[str]) -> tuple[Message, ...]:
        return (Message(role=Role.USER, text="\n".join(shown)),)

    body = "word " * 300
    whole = build([body])
    needed = estimate_messages(whole)
    assert fitted(build, [body], byte_limit=1 << 20, input_tokens=needed) == whole
    (cut,) = fitted(build, [body], byte_limit=1 << 20, input_tokens=needed - 50)
    assert cut.text.endswith(" bytes left out]")
    assert needed - 52 <= estimate_messages([cut]) <= needed - 50


def test_the_room_for_a_prompt_is_what_the_answer_leaves() -> None:
    """A model whose context is not known has no limit; an answer as long as the context leaves nothing."""
    assert input_limit(None, 100) is None
    assert input_limit(8192, 1000) == 7192
    assert input_limit(1000, 4096) == 0


def test_long_texts_are_cut_quickly() -> None:
    """Sixteen megabytes of drafts take no time worth mentioning, for nothing else runs meanwhile."""
    bodies = ["<<< ü ".ljust(1 << 20, "x")] * 16
    started = time.process_time()
    shown_texts(bodies, byte_limit=1 << 20, token_limit=100_000)
    assert time.process_time() - started < 5.0


def test_what_is_not_shown_is_counted() -> None:
    """Of a text far beyond the limit only the beginning is looked at, and the mark tells all that is left out."""
    (shown,) = shown_texts(["\u200d" * 10 + "a" * 100_000], byte_limit=256)
    assert shown.endswith(f"[cut here: {10 * 3 + 100_000 - 256} bytes left out]")


async def test_a_long_prompt_is_made_in_a_thread() -> None:
    """A short one is not; both come back as they are made."""
    for characters, aside in ((THREADED_CHARACTERS - 1, False), (THREADED_CHARACTERS, True)):
        thread = await made_aside(characters, threading.get_ident)
        assert (thread != threading.get_ident()) == aside
