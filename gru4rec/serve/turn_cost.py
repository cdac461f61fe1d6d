"""What a turn of the scoring thread costs, learned while it scores: a part that every turn has, and a part a session.

The parts are a straight line through the newest turns, by least squares that forget. A mean cost a session would not
do: sessions are dear while they come alone, and who turns others away because of that keeps them coming alone.
"""

from __future__ import annotations

_SHARE_OF_NEWEST = 0.05
"""Weight of the newest turn in the running means."""
_DOUBT = 10.0
"""Variance of sessions a turn at which the turns seen and the line so far count alike. In turns of one size there is no
line to be seen: then both parts grow or shrink with what they take."""


class TurnCost:
    """The line ``seconds = fixed + each * sessions``, neither part negative.

    Args:
        alone_s: What a turn of one session takes, in seconds. Until turns of several say otherwise, all of it is taken
            to be a session's own part: the most that several can cost.
    """

    def __init__(self, alone_s: float) -> None:
        self._n_turns = 0
        self._mean_n, self._mean_s = 1.0, alone_s
        self._variance = self._covariance = 0.0
        self._line = (0.0, alone_s)

    @property
    def line(self) -> tuple[float, float]:
        """The seconds that every turn takes, and those that each of its sessions adds."""
        return self._line

    def note(self, n_sessions: int, seconds: float) -> None:
        """Learn from a turn."""
        self._n_turns += 1
        newest = max(_SHARE_OF_NEWEST, 1 / (self._n_turns + 1))  # what was expected counts as a turn
        off_n, off_s = n_sessions - self._mean_n, seconds - self._mean_s
        self._mean_n += newest * off_n
        self._mean_s += newest * off_s
        self._variance = (1 - newest) * (self._variance + newest * off_n * off_n)
        self._covariance = (1 - newest) * (self._covariance + newest * off_n * off_s)
        fixed_s, each_s = self._line
        foreseen_s = fixed_s + each_s * self._mean_n
        each_s = each_s * self._mean_s / foreseen_s if foreseen_s else self._mean_s / self._mean_n
        each_s = (self._covariance + _DOUBT * each_s) / (self._variance + _DOUBT)
        each_s = min(max(each_s, 0.0), self._mean_s / self._mean_n)
        self._line = (max(0.0, self._mean_s - each_s * self._mean_n), each_s)

    def wait_s(self, n_sessions: int, n_turns: float, most: int) -> float:
        """Return the seconds that sessions keep another one waiting.

        Args:
            n_sessions: How many there are.
            n_turns: How many turns each of them needs, on average.
            most: Sessions in a turn, at most. Those beyond it wait for places to become free.
        """
        if not n_sessions:
            return 0.0
        fixed_s, each_s = self._line
        n_beyond = max(0, n_sessions - most)
        return (fixed_s + each_s * (n_sessions - n_beyond)) * (1 + n_turns * n_beyond / most)
