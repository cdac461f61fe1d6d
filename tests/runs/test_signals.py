"""A Ctrl-C that Python drops is not lost."""

from __future__ import annotations

import signal

import pytest

from gru4rec.runs.signals import Interrupts


class ClearedAway:
    """Is interrupted while it is cleared away, where Python drops what is raised."""

    def __del__(self) -> None:
        signal.raise_signal(signal.SIGINT)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_interrupts_that_were_dropped_are_raised_by_check_and_at_the_end() -> None:
    went_on = False
    with pytest.raises(KeyboardInterrupt), Interrupts() as interrupts:  # noqa: PT012
        ClearedAway()
        went_on = True
        with pytest.raises(KeyboardInterrupt):
            interrupts.check()
    assert went_on


def test_interrupts_raise_at_once_and_put_the_handler_back() -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), Interrupts():  # noqa: PT012
        signal.raise_signal(signal.SIGINT)
        pytest.fail("went on")
    assert signal.getsignal(signal.SIGINT) is before


def test_interrupts_that_did_not_come_change_nothing() -> None:
    with Interrupts() as interrupts:
        interrupts.check()
