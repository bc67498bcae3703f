r"""One request's parameters, taken apart as OpenSIPS 2.2's mi_fifo does.

A parameter is a line ``name::value``; name, ``::`` and blanks around the value may be missing. A
value in quotes may go on over several lines, and hold ``\\"``. Source: 2.2's replies, docs/mi.md.
"""

from __future__ import annotations

MAX_QUOTED = 8_192
"""Characters of a value in quotes that goes on over several lines."""

_BLANKS = " \t\n\v\f\r"


class Malformed(Exception):
    """A parameter that 2.2 does not understand; the message says why, for the log."""


class Parameters:
    """The parameters of one request, line by line."""

    def __init__(self) -> None:
        """Begin without any."""
        self.words: list[str] = []
        self._quoted: list[str] | None = None
        """Lines of a value in quotes that has begun and not ended."""
        self._named = False
        """Whether a name stands before it."""

    @property
    def is_open(self) -> bool:
        """Whether a value in quotes has begun and not ended."""
        return self._quoted is not None

    def add(self, line: str) -> None:
        """Take the next line; raises `Malformed`."""
        if self._quoted is not None:
            self._go_on(line)
            return
        name, separator, rest = line.partition("::")
        if not separator or '"' in name:
            name, rest = "", line
        self._named, value = bool(name.strip(_BLANKS)), rest.strip(_BLANKS)
        if value.startswith('"'):
            self._quoted = []
            self._go_on(value[1:])
        elif '"' in value:
            raise Malformed('a stray "')
        else:
            self._take(value)

    def _take(self, value: str) -> None:
        if not value and not self._named:
            raise Malformed("an empty parameter")
        self.words.append(value)

    def _go_on(self, line: str) -> None:
        lines = self._quoted = [*(self._quoted or ()), line]
        found = _up_to_quote(line)
        if found is None:
            if sum(map(len, lines)) > MAX_QUOTED:
                raise Malformed('a " without its end')
            return
        self._quoted = None
        last, rest = found
        if rest.strip(_BLANKS):
            raise Malformed('something behind the closing "')
        self._take("\n".join([*lines[:-1], last]))


def _up_to_quote(text: str) -> tuple[str, str] | None:
    """Return what is before and behind the closing quote, None if there is none.

    A backslash before a quote makes it part of the value; as in 2.2 not as the first character.
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
