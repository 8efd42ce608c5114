"""A run has one owner, even if processes are killed or stopped."""

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
from jaxsae.train.loop import train
from jaxsae.train.process import lease as leases
from jaxsae.train.process.lease import FILE, Lease, Owner, hold
from jaxsae.train.sources import text as text_source
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
  """Shortens intervals from half a minute to seconds."""
  monkeypatch.setattr(leases, "RENEW_EVERY", 0.1)
  monkeypatch.setattr(leases, "OVER_AFTER", OVER_AFTER)
  monkeypatch.setattr(leases, "TRUSTED", 0.0)
  monkeypatch.setattr(leases, "LOOK_EVERY", 0.05)


@pytest.fixture(scope="module")
def workers():
  """Starts two workers; tests leave them alive and without a lease."""
  with Worker(SCRIPT) as one, Worker(SCRIPT) as two:
    assert one.hear() == two.hear() == "ready"
    yield one, two


@pytest.fixture
def worker():
  """Starts a worker that may be killed."""
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


def test_a_second_owner_is_refused_and_the_first_is_named(workers, folder):
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


def test_a_lease_is_renewed(workers, folder):
  one, two = workers
  take(one, folder)
  before = owner(folder)["renewed"]
  time.sleep(1.5 * OVER_AFTER)
  assert owner(folder)["renewed"] > before + OVER_AFTER
  assert take(two, folder).startswith("UserError")
  release(one)


@pytest.mark.parametrize("stale", [False, True])
def test_only_one_of_two_simultaneous_starts_gets_the_lease(
  workers, folder, stale
):
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


def test_after_sigkill_the_next_takes_over_at_once(worker, folder, capsys):
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


def test_a_stopped_owner_is_replaced_and_cannot_continue(workers, folder):
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


def test_a_short_stop_keeps_the_lease(workers, folder):
  worker, _ = workers
  take(worker, folder)
  os.kill(worker.pid, signal.SIGSTOP)
  time.sleep(0.3 * OVER_AFTER)
  os.kill(worker.pid, signal.SIGCONT)
  assert worker.do("held.check()") == "None"
  release(worker)


def test_a_lease_that_was_removed_is_lost(folder):
  """Whoever removed it may have run another run to its end."""
  with hold(folder) as lease:
    lease.check()
    (folder / FILE).unlink()
    with pytest.raises(RunError, match="is gone"):
      lease.check()


def dead() -> Owner:
  """Describes an ended process of this machine with the same number."""
  return dataclasses.replace(Owner.me(), birth="0")


def elsewhere(**fields) -> Owner:
  """Describes a process on another machine."""
  return dataclasses.replace(Owner.me(), host="far", place="far", **fields)


def left(folder, owner: Owner) -> None:
  folder.mkdir(parents=True, exist_ok=True)
  (folder / FILE).write_text(json.dumps(dataclasses.asdict(owner)))


@pytest.mark.parametrize("renewed", [0.0, 4e9])
def test_an_owner_on_another_machine_is_judged_by_silence_only(folder, renewed):
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


def test_a_reused_process_number_is_another_process(folder):
  """In a container, the first process always has number 1."""
  left(folder, dead())
  with hold(folder) as lease:
    lease.check()


@pytest.fixture
def no_locks(monkeypatch):
  """Removes file locks, as in an object store."""

  @contextlib.contextmanager
  def unlocked(folder, patience=0.0):
    yield False

  monkeypatch.setattr(leases, "locked", unlocked)


def test_without_locks_the_last_writer_gets_the_lease(folder, no_locks):
  one, two = Lease(folder), Lease(folder)
  assert not one.take()  # written, to be read again
  (folder / FILE).unlink()  # two looked before one wrote
  assert not two.take()
  with pytest.raises(UserError):
    one.take()
  assert two.take()


def test_a_run_can_be_held_without_locks(folder, no_locks):
  with hold(folder) as lease:
    lease.check()
    with pytest.raises(UserError), hold(folder):
      pass
  assert list(folder.iterdir()) == []


def test_a_file_that_is_not_a_lease_is_not_replaced(folder):
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


def test_an_unreachable_file_is_tolerated_until_the_lease_expires(
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


def test_a_run_with_another_owner_is_not_touched(workers, small, replace):
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


def test_a_run_that_lost_its_lease_saves_and_logs_nothing_more(
  small, monkeypatch
):
  folder, read = epath.Path(small.workdir), text_source.next_bucket
  count = iter(range(1, 1000))

  def reading(*args):
    if next(count) == 5:
      left(folder, elsewhere())
    return read(*args)

  monkeypatch.setattr(text_source, "next_bucket", reading)
  monkeypatch.setattr(leases, "RENEW_EVERY", 60.0)
  with pytest.raises(RunError, match="now belongs to host far"):
    train(small)
  lines = (folder / "metrics.jsonl").read_text().splitlines()
  assert len(lines) < 5
  saved = [p.name for p in (folder / "checkpoints").iterdir()]
  assert saved and "6" not in saved
  assert owner(folder)["host"] == "far"
