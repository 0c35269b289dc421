"""Secrets that nobody can guess, and a search that finds them, or half of one, in whatever was written, also where it was written in another form."""

import base64
import json
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import quote, quote_plus

from services.chassis.api_keys import PREFIX, new_key

TABLE: Final = (
    ("provider key", "sk-or-v1-{}", "variable FAKE_API_KEY"),
    ("other provider key", "sk-proj-{}", "file of provider `filed`"),
    ("redis password", "redis-{}", "variable REDIS_PASSWORD"),
    ("variable of others", "aws/{}+=", "variable AWS_SECRET_ACCESS_KEY"),
    ("alice's key", "KEY", "authorization; its hash with the tenant"),
    ("bob's key", "KEY", "authorization; its hash in the keys file"),
    ("stranger's key", "KEY", "authorization"),
    ("pasted key", "KEY", "plain in the keys file, among the keys of a tenant, as a profile's name"),
    ("misplaced credentials", "misplaced {}", "x-api-key, cookie, basic authorization, -bin metadata"),
    ("tls key", "PEM", "tls.key"),
    ("gateway's tls key", "PEM", "gateway.tls.key"),
    ("prompt", 'a "prompt"\n{} für 100%', "prompt"),
    ("system text", "<system> {} </system>", "system"),
    ("persona", "You are {}.", "persona of a member"),
    ("label", "label {}", "value of a label"),
    ("name of a label", "Label {}", "name of a label that is refused"),
    ("schema", "schema {}", "response_schema that is none, and parameters"),
    ("answer", "the 'answer' {}\té", "answers of models"),
    ("provider's words", "provider says {}", "bodies and headers of a provider's errors"),
)
"""Every kind of secret there is: name, form, and where the tests plant it."""
MARKER: Final = "an-ordinary-name"
"""A name that is no secret, and is expected in logs, spans and errors: what is searched is what was written."""
CORE = 32
"""Characters of a secret that are random; half of them are enough to tell one, and to be found."""
_SHORTEST = 12
"""Characters that are enough to tell a secret."""
_WINDOW = 24
"""Bytes of which the other forms are made. Base64 is found from any of the three places where they may begin among the bytes around them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Secret:
    """One secret, and where it was put."""

    name: str
    text: str = field(repr=False)
    planted: str
    """Where, in words."""


class PlantedSecrets:
    """Makes secrets by name from a table of name, form and where it is planted, and finds them again.

    A form is text in which `{}` stands for random letters and figures; "KEY" is an API key of ours and "PEM" comes later, by `add`.
    """

    def __init__(self, table: Sequence[tuple[str, str, str]]) -> None:
        self._secrets: dict[str, Secret] = {}
        self._forms: dict[str, tuple[tuple[str, str], ...]] = {}
        for name, form, planted in table:
            if form != "PEM":
                core = new_key().removeprefix(PREFIX) if form == "KEY" else secrets.token_hex(CORE // 2)
                self.add(name, PREFIX + core if form == "KEY" else form.format(core), planted, core)

    def __getitem__(self, name: str) -> str:
        return self._secrets[name].text

    def __iter__(self) -> Iterator[Secret]:
        return iter(self._secrets.values())

    def add(self, name: str, text: str, planted: str, core: str = "") -> None:
        """Know one more secret; its core is the part of it that is random, where that is not the whole."""
        if name in self._secrets:
            raise ValueError(f"there is a secret {name} already")
        self._secrets[name] = Secret(name=name, text=text, planted=planted)
        # Case is not looked at: what becomes the name of a header is written small, what becomes that of a variable in capitals.
        self._forms[name] = tuple(dict.fromkeys((form, needle.lower()) for form, needle in _forms(text, core or text) if len(needle) >= _SHORTEST))

    def add_pem(self, name: str, pem: bytes, planted: str) -> None:
        """Know the private part of a key; what begins all keys of its kind is none."""
        self.add(name, "".join(pem.decode().splitlines()[2:-1]), planted)

    def found_in(self, written: Mapping[str, str | bytes], *, but: Sequence[str] = ()) -> list[str]:
        """Return each secret that stands in a text, but for some, as which form and in which of the texts; empty where there is none."""
        hits = []
        for where, content in written.items():
            text = (content.decode("utf-8", "replace") if isinstance(content, bytes) else content).lower()
            for name, forms in self._forms.items():
                if name in but:
                    continue
                hits += [f"{name} ({self._secrets[name].planted}) as {form} in {where}" for form, needle in dict(forms).items() if needle in text]
        return hits


def _forms(text: str, core: str) -> Iterator[tuple[str, str]]:
    """Yield each form under which a secret, or half of it, may stand in a text."""
    yield "itself", text
    # Python's shortened texts end with the last thirteen characters.
    yield "beginning", core[:_SHORTEST]
    yield "end", core[-_SHORTEST:]
    half = len(text) // 2
    for part, piece in (("first half", text[:half]), ("second half", text[-half:])):
        yield part, piece
        yield f"{part} in JSON", json.dumps(piece)[1:-1]
        yield f"{part} as Python writes it", repr(piece)[1:-1]
        yield f"{part} in a URL", quote(piece, safe="")
        yield f"{part} in a form", quote_plus(piece)
        raw = piece.encode()[:_WINDOW]
        yield f"{part} in hexadecimal", raw.hex()
        for skipped in range(3):
            # Three bytes make four characters; the last ones of a piece depend on what follows it.
            whole = raw[skipped:]
            encoded = base64.b64encode(whole[: len(whole) // 3 * 3])
            yield f"{part} in base64, {skipped}", encoded.decode()
            yield f"{part} in base64 for URLs, {skipped}", encoded.translate(bytes.maketrans(b"+/", b"-_")).decode()


@dataclass(frozen=True, slots=True)
class Written:
    """Everything that was written and told, by where."""

    texts: dict[str, bytes] = field(default_factory=dict)

    def add(self, where: str, content: str | bytes) -> None:
        """Take what was written somewhere, after what was written there before."""
        added = content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content
        self.texts[where] = self.texts.get(where, b"") + b"\n" + added

    def add_files(self, folder: Path, pattern: str) -> None:
        """Take files, as they now are."""
        for path in sorted(folder.glob(pattern)):
            self.texts[str(path.relative_to(folder))] = path.read_bytes()


def nothing_of(planted: PlantedSecrets, written: Written, *, but: Sequence[str] = ()) -> None:
    """Assert that no secret was written, but for some; the error says which was, how and where."""
    assert not (hits := planted.found_in(written.texts, but=but)), "\n".join(hits)
