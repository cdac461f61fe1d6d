"""A Ctrl-C or a SIGTERM that Python drops is not lost."""

from __future__ import annotations

import signal

import pytest

from gru4rec.runs.signals import Interrupts, StopSignals


class ClearedAway:
    """Gets a signal while it is cleared away, where Python drops what is raised."""

    def __init__(self, number: signal.Signals) -> None:
        self._number = number

    def __del__(self) -> None:
        signal.raise_signal(self._number)


ENDS = [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(("number", "raised"), ENDS)
def test_interrupts_that_were_dropped_are_raised_by_check_and_at_the_end(
    number: signal.Signals, raised: type[BaseException]
) -> None:
    went_on = False
    with pytest.raises(raised), Interrupts() as interrupts:  # noqa: PT012
        ClearedAway(number)
        went_on = True
        with pytest.raises(raised):
            interrupts.check()
    assert went_on


@pytest.mark.parametrize(("number", "raised"), ENDS)
def test_interrupts_raise_at_once_and_put_the_handlers_back(
    number: signal.Signals, raised: type[BaseException]
) -> None:
    before = [signal.getsignal(each) for each, _ in ENDS]
    with pytest.raises(raised), Interrupts():  # noqa: PT012
        signal.raise_signal(number)
        pytest.fail("went on")
    assert [signal.getsignal(each) for each, _ in ENDS] == before


def test_sigterm_exits_with_its_status_and_does_not_disturb_what_is_put_away_then() -> None:
    put_away = False
    with pytest.raises(SystemExit) as ended, Interrupts():  # noqa: PT012
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            signal.raise_signal(signal.SIGTERM)
            put_away = True
    assert put_away
    assert ended.value.code == 143


def test_interrupts_that_did_not_come_change_nothing() -> None:
    with Interrupts() as interrupts:
        interrupts.check()


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
def test_noted_signals_do_not_end_what_stops_by_itself_but_for_a_second_ctrl_c(first: signal.Signals) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), StopSignals() as stop:  # noqa: PT012
        signal.raise_signal(first)
        for _ in range(3):  # of a scheduler, and of the program that started this one
            signal.raise_signal(signal.SIGTERM)
        assert stop.received == first
        signal.raise_signal(signal.SIGINT)
        pytest.fail("went on")
    assert signal.getsignal(signal.SIGTERM) is before
