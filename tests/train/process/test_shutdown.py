"""The first signal asks for a stop; the second has its default effect."""

import signal
import time

import pytest

from jaxsae.train.process.shutdown import INTERRUPTED, PREEMPTED, ShutdownSignal

STATUSES = {signal.SIGINT: INTERRUPTED, signal.SIGTERM: PREEMPTED}


@pytest.mark.parametrize("sent", STATUSES)
def test_the_first_signal_asks_the_run_to_stop(sent):
  with ShutdownSignal() as stop:
    assert not stop.asked(3) and stop.status is None
    signal.raise_signal(sent)
    assert stop.asked(4) and stop.asked(5)
    assert stop.status == STATUSES[sent]
    assert 0 <= stop.seconds() < 60


@pytest.mark.parametrize("sent", STATUSES)
def test_the_second_signal_has_its_default_effect(sent):
  before = {number: signal.getsignal(number) for number in STATUSES}
  with ShutdownSignal():
    assert {n: signal.getsignal(n) for n in STATUSES} != before
    signal.raise_signal(sent)
    assert {n: signal.getsignal(n) for n in STATUSES} == before


def test_signal_handlers_are_restored():
  before = {number: signal.getsignal(number) for number in STATUSES}
  with pytest.raises(ValueError, match="broken"), ShutdownSignal():
    raise ValueError("broken")
  assert {n: signal.getsignal(n) for n in STATUSES} == before


def test_seconds_count_from_the_signal():
  with ShutdownSignal() as stop:
    signal.raise_signal(signal.SIGTERM)
    time.sleep(0.2)
    assert stop.seconds() >= 0.2
