"""A full screen that refreshes, scrolls, and stays during an outage of Redis."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from time import monotonic
from typing import overload

from rich.console import Console
from rich.live import Live
from rich.text import Text

from clusterer.cli.live.keyboard import QUIT, Keyboard
from clusterer.errors import StateUnavailable, WrongKey
from clusterer.runtime.stop import stop_on_signals

_LOOK_S = 0.25
"""Longest wait for a key; bounds the delay after a change of the terminal's size."""

_ROOMY = 15
"""Least number of lines for a foot."""

_UP = (b"\x1b[A", b"\x1bOA", b"k")
_DOWN = (b"\x1b[B", b"\x1bOB", b"j")
_PAGE_UP = (b"\x1b[5~", b"b")
_PAGE_DOWN = (b"\x1b[6~", b" ")
_HOME = (b"\x1b[H", b"\x1bOH", b"\x1b[1~", b"g")
_END = (b"\x1b[F", b"\x1bOF", b"\x1b[4~", b"G")


@dataclass(frozen=True, slots=True)
class Page:
    """The content of the screen; long lines are cut off."""

    title: str
    head: Sequence[Text]
    body: Sequence[Text]
    """Lines that scroll if they do not fit."""
    foot: Sequence[Text] = ()


class Lines(Sequence[Text]):
    """Lines that are made when they are looked at."""

    def __init__(self, makers: Sequence[Callable[[], Text]]) -> None:
        self._makers = makers

    def __len__(self) -> int:
        return len(self._makers)

    @overload
    def __getitem__(self, at: int) -> Text: ...

    @overload
    def __getitem__(self, at: slice) -> Sequence[Text]: ...

    def __getitem__(self, at: int | slice) -> Text | Sequence[Text]:
        """Return a line, or the lines of a slice."""
        if isinstance(at, slice):
            return [make() for make in self._makers[at]]
        return self._makers[at]()


Draw = Callable[[int, int], Page]
"""Gets the width and the height."""


def is_for(console: Console) -> bool:
    """Whether the console can show a screen."""
    return console.is_terminal and not console.is_dumb_terminal


def show(console: Console, interval_s: float, look: Callable[[], object], draw: Draw) -> None:
    """Look every ``interval_s`` and show the page of ``draw``, until ``q`` or a signal.

    ``look`` may raise `StateUnavailable`: `show` raises the first one, and shows later ones on the
    screen.
    """
    look()
    live = Live(console=console, screen=True, auto_refresh=False)
    with stop_on_signals() as stop, Keyboard() as keyboard, live:
        screen = _Screen(console, live, draw, interval_s, keys=keyboard.there)
        due = monotonic() + interval_s
        while not stop.is_set():
            screen.refresh()
            pressed = keyboard.read(stop, min(due - monotonic(), _LOOK_S))
            if any(key in QUIT for key in pressed):
                return
            screen.scroll(pressed)
            if monotonic() >= due and not stop.is_set():
                screen.attempt(look)
                due = monotonic() + interval_s


class _Screen:
    def __init__(
        self,
        console: Console,
        live: Live,
        draw: Draw,
        interval_s: float,
        *,
        keys: bool,
    ) -> None:
        self._console = console
        self._live = live
        self._draw = draw
        self._page: Page | None = None
        self._size = console.size
        self._interval_s = interval_s
        self._quits = "q quits" if keys else "Ctrl-C quits"
        self._offset = 0
        self._rows = 1
        self._away = ""

    def attempt(self, look: Callable[[], object]) -> None:
        self._page = None
        try:
            look()
        except Exception as error:  # noqa: BLE001 - one look that fails must not end the screen
            what = "Redis is away" if _is_away(error) else "The nodes cannot be read"
            since = self._away.partition(": ")[0]
            since = since if since.startswith(what) else f"{what} since {_clock()}"
            self._away = f"{since}: {error}"
        else:
            self._away = ""

    def scroll(self, pressed: Sequence[bytes]) -> None:
        before = self._offset
        page = max(1, self._rows - 1)
        for key in pressed:
            for names, step in (
                (_UP, -1),
                (_DOWN, 1),
                (_PAGE_UP, -page),
                (_PAGE_DOWN, page),
                (_HOME, -(10**6)),
                (_END, 10**6),
            ):
                if key in names:
                    self._offset = max(0, self._offset + step)
        if self._page is not None and self._offset != before:
            self._show(self._page)

    def refresh(self) -> None:
        """Draw the screen if there was a look or the terminal's size has changed."""
        if self._page is None or self._size != self._console.size:
            self._size = self._console.size
            self._page = self._draw(*self._size)
            self._show(self._page)

    def _show(self, page: Page) -> None:
        width, height = self._size
        above = [self._title(page.title, width), *self._warning(), *page.head]
        foot = page.foot if height >= _ROOMY else ()
        self._rows = max(1, height - len(above) - len(foot) - 1)
        self._offset = min(self._offset, max(0, len(page.body) - self._rows))
        seen = list(page.body[self._offset : self._offset + self._rows])
        seen += [Text()] * (self._rows - len(seen))
        lines = [*above, *seen, *foot, self._position(len(page.body))]
        for line in lines:
            line.truncate(width, overflow="ellipsis")
        # At most ``height`` lines: one more would scroll the terminal.
        self._live.update(Text("\n", no_wrap=True).join(lines[:height]), refresh=True)

    def _title(self, title: str, width: int) -> Text:
        right = f"every {self._interval_s:g} s, {self._quits}"
        return Text(title.ljust(width - len(right) - 1)[: width - len(right) - 1], "bold").append(
            f" {right}", "not bold"
        )

    def _warning(self) -> list[Text]:
        if not self._away:
            return []
        since, _, why = self._away.partition(": ")
        return [Text(f"{since}. Last known data below.", "bold red"), Text(why, "red")]

    def _position(self, lines: int) -> Text:
        if lines <= self._rows:
            return Text()
        last = min(lines, self._offset + self._rows)
        how = "arrow keys, space and b scroll" if "q" in self._quits else "the rest does not fit"
        return Text(f"Lines {self._offset + 1} to {last} of {lines}: {how}", "reverse")


def _is_away(error: Exception) -> bool:
    return isinstance(error, StateUnavailable) and not isinstance(error, WrongKey)


def _clock() -> str:
    return datetime.now().astimezone().strftime("%H:%M:%S")
