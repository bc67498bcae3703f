r"""The parameters of one request, decoded as in OpenSIPS 2.2's mi_fifo.

A parameter is a line ``name::value``; name, ``::`` and blanks around the value may be missing. A
value in quotes may have several lines, and contain ``\\"``. Source: 2.2's replies, docs/mi.md.
"""

from __future__ import annotations

MAX_QUOTED = 8_192
"""Characters of a value in quotes over several lines."""

_BLANKS = " \t\n\v\f\r"


class Malformed(Exception):
    """A parameter that OpenSIPS 2.2 rejects; the message is for the log."""


class Parameters:
    """The parameters of one request, line by line."""

    def __init__(self) -> None:
        self.words: list[str] = []
        self._quoted: list[str] | None = None
        """Lines of an incomplete value in quotes."""
        self._named = False
        """Whether the present value has a name."""

    @property
    def is_open(self) -> bool:
        """Whether a value in quotes is incomplete."""
        return self._quoted is not None

    def add(self, line: str) -> None:
        """Take the next line; raises `Malformed`."""
        if self._quoted is not None:
            self._extend(line)
            return
        name, separator, rest = line.partition("::")
        if not separator or '"' in name:
            name, rest = "", line
        self._named, value = bool(name.strip(_BLANKS)), rest.strip(_BLANKS)
        if value.startswith('"'):
            self._quoted = []
            self._extend(value[1:])
        elif '"' in value:
            raise Malformed('a stray "')
        else:
            self._take(value)

    def _take(self, value: str) -> None:
        if not value and not self._named:
            raise Malformed("an empty parameter")
        self.words.append(value)

    def _extend(self, line: str) -> None:
        lines = self._quoted = [*(self._quoted or ()), line]
        found = _up_to_quote(line)
        if found is None:
            if sum(map(len, lines)) > MAX_QUOTED:
                raise Malformed('a " without its end')
            return
        self._quoted = None
        last, rest = found
        if rest.strip(_BLANKS):
            raise Malformed('text behind the closing "')
        self._take("\n".join([*lines[:-1], last]))


def _up_to_quote(text: str) -> tuple[str, str] | None:
    """Return the text before and behind the closing quote, None without a closing quote.

    A quote behind a backslash is part of the value; as in OpenSIPS 2.2, not at the first position.
    """
    characters, at = list(text), 0
    while at < len(characters):
        if characters[at] != '"':
            at += 1
        elif at > 1 and characters[at - 1] == "\\":
            del characters[at - 1]
        else:
            return "".join(characters[:at]), "".join(characters[at + 1 :])
    return None
