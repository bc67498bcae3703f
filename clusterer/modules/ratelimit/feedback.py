"""The PID controller that tells FEEDBACK how much to refuse."""

from __future__ import annotations


class Controller:
    """From the CPU load to a drop rate, one step an interval. Gains default to those of 2.2."""

    def __init__(self, kp: float = 0.0, ki: float = -25.0, kd: float = 0.0) -> None:
        self._kp, self._ki, self._kd = kp, ki, kd
        self.reset()

    def reset(self) -> None:
        """Forget all that was seen."""
        self._integral = 0.0
        self._error = 0.0

    def step(self, load: float, limit: int) -> float:
        """Take the CPU ``load`` (0 to 1) of an interval; return the percentage to refuse, from 0.

        ``limit`` is the load to hold, in percent. The integral moves only while it or the error
        is negative: long idle times, which no negative drop rate could make up for, must not
        delay the answer to an overload.
        """
        error = limit / 100 - load
        if self._integral < 0 or error < 0:
            self._integral += error
        change, self._error = error - self._error, error
        rate = self._kp * error + self._ki * self._integral + self._kd * change
        # 0.9 at a limit of 70 asks for 5 %; 5.000000000000002 would refuse one more in 100.
        return max(0.0, round(rate, 9))
