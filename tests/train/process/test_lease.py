"""One run, one owner: with real processes, killed, stopped and at once."""

import contextlib
import dataclasses
import json
import os
import signal
import socket
import threading
import time

import pytest
from etils import epath

from jaxsae.errors import RunError, UserError
from jaxsae.lm import Site
from jaxsae.train import sources
from jaxsae.train.loop import train
from jaxsae.train.process import lease as leases
from jaxsae.train.process.lease import FILE, Lease, Owner, hold
from tests.train.worker import Worker

pytestmark = pytest.mark.slow

OVER_AFTER = 1.0
SCRIPT = f"""
import contextlib
from etils import epath
from jaxsae.train.process import lease
lease.RENEW_EVERY, lease.OVER_AFTER = 0.1, {OVER_AFTER}
lease.TRUSTED, lease.LOOK_EVERY = 0.0, 0.05
ending = contextlib.ExitStack()
def take(folder):
  global held
  held = ending.enter_context(lease.hold(epath.Path(folder)))
  return "taken"
"""


@pytest.fixture(autouse=True)
def quick(monkeypatch):
  """Seconds instead of half minutes."""
  monkeypatch.setattr(leases, "RENEW_EVERY", 0.1)
  monkeypatch.setattr(leases, "OVER_AFTER", OVER_AFTER)
  monkeypatch.setattr(leases, "TRUSTED", 0.0)
  monkeypatch.setattr(leases, "LOOK_EVERY", 0.05)


@pytest.fixture(scope="module")
def workers():
  """Two, for tests that leave them alive and without a lease."""
  with Worker(SCRIPT) as one, Worker(SCRIPT) as two:
    assert one.hear() == two.hear() == "ready"
    yield one, two


@pytest.fixture
def worker():
  """One that may be killed."""
  with Worker(SCRIPT) as one:
    assert one.hear() == "ready"
    yield one


@pytest.fixture
def folder(tmp_path):
  return epath.Path(tmp_path / "run")


def take(worker, folder) -> str:
  return worker.do(f"take({str(folder)!r})")


def release(worker) -> None:
  assert worker.do("ending.close()") == "None"


def owner(folder) -> dict:
  return json.loads((folder / FILE).read_text())


def test_the_second_is_refused_and_told_of_the_first(workers, folder):
  one, two = workers
  assert take(one, folder) == "taken"
  said = take(two, folder)
  assert said.startswith("UserError") and "--workdir=DIR" in said
  for part in (socket.gethostname(), str(one.pid), owner(folder)["started"]):
    assert part in said
  assert one.do("held.check()") == "None"
  release(one)
  assert take(two, folder) == "taken"  # a clean end leaves no lease
  release(two)
  assert list(folder.iterdir()) == [] and not one.told + two.told


def test_a_lease_is_renewed_and_so_lasts(workers, folder):
  one, two = workers
  take(one, folder)
  before = owner(folder)["renewed"]
  time.sleep(1.5 * OVER_AFTER)
  assert owner(folder)["renewed"] > before + OVER_AFTER
  assert take(two, folder).startswith("UserError")
  release(one)


@pytest.mark.parametrize("stale", [False, True])
def test_of_two_that_start_at_once_exactly_one_wins(workers, folder, stale):
  for number in range(10):
    place = folder / str(number)
    if stale:
      place.mkdir(parents=True)
      left(place, dead())
    for worker in workers:
      worker.say(f"take({str(place)!r})")
    said = sorted(worker.hear()[:9] for worker in workers)
    assert said == ["UserError", "taken"]
    for worker in workers:
      release(worker)
    assert not (place / FILE).exists()


def test_after_kill_9_the_next_takes_over_at_once_and_says_so(
  worker, folder, capsys
):
  take(worker, folder)
  worker.process.kill()  # and is not waited for: it is a zombie now
  time.sleep(0.2)
  start = time.monotonic()
  with hold(folder) as lease:
    assert time.monotonic() - start < OVER_AFTER / 2
    lease.check()
  told = capsys.readouterr().out
  assert told.count("\n") == 1 and f"pid {worker.pid}" in told
  assert "takes over from host" in told and "s ago" in told


def test_a_stopped_owner_is_replaced_and_must_not_go_on(workers, folder):
  worker, _ = workers
  take(worker, folder)
  os.kill(worker.pid, signal.SIGSTOP)
  try:
    with pytest.raises(UserError, match=str(worker.pid)), hold(folder):
      pass  # it may still wake up
    time.sleep(1.2 * OVER_AFTER)
    with hold(folder) as lease:
      os.kill(worker.pid, signal.SIGCONT)
      said = worker.do("held.check()")
      assert said.startswith("RunError") and f"pid {os.getpid()}" in said
      release(worker)
      lease.check()  # it did not take this one's lease with it
  finally:
    os.kill(worker.pid, signal.SIGCONT)


def test_a_short_stop_costs_nothing(workers, folder):
  worker, _ = workers
  take(worker, folder)
  os.kill(worker.pid, signal.SIGSTOP)
  time.sleep(0.3 * OVER_AFTER)
  os.kill(worker.pid, signal.SIGCONT)
  assert worker.do("held.check()") == "None"
  release(worker)


def test_a_lease_that_was_removed_is_lost(folder):
  """Whoever removed it may have started another run, which may be over."""
  with hold(folder) as lease:
    lease.check()
    (folder / FILE).unlink()
    with pytest.raises(RunError, match="is gone"):
      lease.check()


def dead() -> Owner:
  """A process of this machine that had this number before."""
  return dataclasses.replace(Owner.me(), birth="0")


def elsewhere(**fields) -> Owner:
  """A process whose life cannot be seen from here."""
  return dataclasses.replace(Owner.me(), host="far", place="far", **fields)


def left(folder, owner: Owner) -> None:
  folder.mkdir(parents=True, exist_ok=True)
  (folder / FILE).write_text(json.dumps(dataclasses.asdict(owner)))


@pytest.mark.parametrize("renewed", [0.0, 4e9])
def test_of_another_machine_only_silence_counts_and_no_clock(folder, renewed):
  left(folder, elsewhere(renewed=renewed))
  start = time.monotonic()
  with hold(folder):
    assert time.monotonic() - start > OVER_AFTER


@pytest.mark.parametrize("renewed", [0.0, 4e9])
def test_a_living_owner_on_another_machine_is_noticed(folder, renewed):
  other = elsewhere(renewed=renewed)
  left(folder, other)
  renewal = threading.Timer(
    0.3, left, (folder, dataclasses.replace(other, renewed=renewed + 1))
  )
  renewal.start()
  with pytest.raises(UserError, match="host far"), hold(folder):
    pass
  renewal.join()
  assert owner(folder)["host"] == "far"


def test_a_number_used_again_is_another_process(folder):
  """As in a container, where the first process is always number 1."""
  left(folder, dead())
  with hold(folder) as lease:
    lease.check()


@pytest.fixture
def no_locks(monkeypatch):
  """As in an object store."""

  @contextlib.contextmanager
  def unlocked(folder, patience=0.0):
    yield False

  monkeypatch.setattr(leases, "locked", unlocked)


def test_without_locks_the_last_to_write_wins(folder, no_locks):
  one, two = Lease(folder), Lease(folder)
  assert not one.take()  # written, to be read again
  (folder / FILE).unlink()  # two looked before one wrote
  assert not two.take()
  with pytest.raises(UserError):
    one.take()
  assert two.take()


def test_without_locks_too_a_run_can_be_held(folder, no_locks):
  with hold(folder) as lease:
    lease.check()
    with pytest.raises(UserError), hold(folder):
      pass
  assert list(folder.iterdir()) == []


def test_what_is_no_lease_is_not_replaced(folder):
  folder.mkdir()
  (folder / FILE).write_text('{"rent": 800}')
  with (
    pytest.raises(UserError, match=r"lease\.json does not say"),
    hold(folder),
  ):
    pass
  assert (folder / FILE).read_text() == '{"rent": 800}'
  (folder / FILE).write_text("")  # a power cut
  with hold(folder):
    pass


def test_a_file_out_of_reach_is_borne_while_nobody_can_take_over(
  folder, monkeypatch
):
  def read(*_):
    raise OSError(5, "Input/output error")

  with hold(folder) as lease:
    monkeypatch.setattr(Lease, "_read", read)
    lease.check()
    time.sleep(1.2 * OVER_AFTER)
    with pytest.raises(RunError, match="Input/output error"):
      lease.check()


def test_a_full_disk_does_not_lose_the_lease(folder, monkeypatch):
  def write(*_):
    raise OSError(28, "No space left on device")

  with hold(folder) as lease:
    monkeypatch.setattr(Lease, "_write", write)
    time.sleep(1.2 * OVER_AFTER)
    lease.check()


@pytest.fixture
def small(config, replace):
  return replace(config, sae__sites=(Site("resid", 0),))


def test_a_run_that_is_under_way_is_left_alone(workers, small, replace):
  (one, _), config = workers, replace(small, tokens=512)
  folder = epath.Path(config.workdir)
  take(one, folder)
  with pytest.raises(UserError, match=f"pid {one.pid}"):
    train(config)
  assert [file.name for file in folder.iterdir()] == [FILE]
  release(one)
  train(config)
  names = {file.name for file in folder.iterdir()}
  assert FILE not in names and "config.json" in names


def test_a_run_that_lost_its_lease_saves_and_tells_nothing_more(
  small, monkeypatch
):
  folder, read = epath.Path(small.workdir), sources.next_bucket
  count = iter(range(1, 1000))

  def reading(*args):
    if next(count) == 6:  # the first is read twice: this is the fifth
      left(folder, elsewhere())
    return read(*args)

  monkeypatch.setattr(sources, "next_bucket", reading)
  monkeypatch.setattr(leases, "RENEW_EVERY", 60.0)
  with pytest.raises(RunError, match="now belongs to host far"):
    train(small)
  lines = (folder / "metrics.jsonl").read_text().splitlines()
  assert len(lines) < 5
  saved = [p.name for p in (folder / "checkpoints").iterdir()]
  assert saved and "6" not in saved
  assert owner(folder)["host"] == "far"
