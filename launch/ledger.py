"""Records what was created from this machine, in one file per name.

~/.jaxsae/launch/NAME.json    the request, the code and the run
~/.jaxsae/launch/NAME/        what was copied: the archive, the user's script;
                              and the uncommitted diff
~/.jaxsae/launch/.dry-run/    the same of names that only dry runs created
"""

import dataclasses
import datetime
import json
import os
import pathlib
import shutil

from launch import names
from launch.errors import LaunchError
from launch.request import Request

DEFAULT = "~/.jaxsae/launch"


@dataclasses.dataclass
class Run:
  """A run and its attempts.

  Attributes:
    id: the same for all attempts.
    argv: the experiment's file and its flags.
    workdir: where its checkpoints are.
    env: environment variables.
    attempts: the `number`, time `started` and reason `why` of each start.
  """

  id: str
  argv: list[str]
  workdir: str
  env: dict[str, str] = dataclasses.field(default_factory=dict)
  attempts: list[dict] = dataclasses.field(default_factory=list)

  def attempt(self, why: str) -> int:
    """Records another start and returns its number."""
    number = len(self.attempts) + 1
    self.attempts.append({"number": number, "started": now(), "why": why})
    return number


@dataclasses.dataclass
class Entry:
  """The record of one name.

  Attributes:
    request: what was asked for.
    created: time of creation.
    code: `commit`, `dirty` and `sha256` of the code that was copied.
    run: the run that was started last.
    script: name of the user's script that new machines run; None if there is
      none.
  """

  request: Request
  created: str
  code: dict | None = None
  run: Run | None = None
  script: str | None = None

  @property
  def name(self) -> str:
    """Name of the slices."""
    return self.request.name


class Ledger:
  """A folder of entries.

  A dry run changes no entry. The names that it creates have entries of their
  own, which other dry runs read, so that all verbs can be rehearsed.

  Args:
    folder: where the entries are; created when first needed.
    dry: whether this is a dry run.
  """

  def __init__(self, folder=DEFAULT, dry: bool = False):
    self._folder = pathlib.Path(names.path(folder))
    self._rehearsed = self._folder / ".dry-run"
    self._dry = dry

  def folder(self, name: str) -> pathlib.Path:
    """Returns the folder of a name, created if it does not exist."""
    path = self._folder / name
    if not self._dry:
      path.mkdir(parents=True, exist_ok=True)
    return path

  def names(self) -> list[str]:
    """Returns the names of all entries."""
    rehearsed = self._rehearsed.glob("*.json") if self._dry else ()
    files = (*self._folder.glob("*.json"), *rehearsed)
    return sorted({path.stem for path in files})

  def is_real(self, name: str) -> bool:
    """Returns whether a name was created by more than a dry run."""
    return (self._folder / f"{name}.json").exists()

  def read(self, name: str | None) -> Entry:
    """Returns the entry of a name, or the only entry if no name is given.

    Raises:
      LaunchError: no such entry exists, or a name is needed.
    """
    names = self.names()
    if name is None and len(names) == 1:
      name = names[0]
    if name not in names:
      raise LaunchError(
        f"{name or 'NAME'} was not created from here ({self._there(name)});"
        " give a NAME, or make one with `python -m launch create NAME …`."
      )
    return _entry(json.loads(self.file(name).read_text(encoding="utf-8")))

  def _there(self, name: str | None) -> str:
    """Says what there is instead of a name."""
    if name is not None and (self._rehearsed / f"{name}.json").exists():
      return "only by a dry run"
    names = self.names()
    return f"there are {', '.join(names)}" if names else "there is none yet"

  def write(self, entry: Entry) -> None:
    """Writes an entry atomically, readable by its owner only."""
    if self._dry and self.is_real(entry.name):
      return
    file = self.file(entry.name)
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".partial")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(descriptor, "w", encoding="utf-8") as out:
      json.dump(dataclasses.asdict(entry), out, indent=2)
    os.replace(partial, file)
    if not self._dry:
      (self._rehearsed / file.name).unlink(missing_ok=True)

  def remove(self, name: str) -> None:
    """Removes a name's entry and folder."""
    if self._dry and self.is_real(name):
      return
    self.file(name).unlink(missing_ok=True)
    if not self._dry:
      shutil.rmtree(self._folder / name, ignore_errors=True)

  def file(self, name: str) -> pathlib.Path:
    """Returns the path of a name's entry."""
    of_dry_run = self._dry and not self.is_real(name)
    return (self._rehearsed if of_dry_run else self._folder) / f"{name}.json"


def now() -> str:
  """Returns the current time in UTC as text."""
  return f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M:%S} UTC"


def _entry(data: dict) -> Entry:
  run = data["run"] and Run(**data["run"])
  request = Request(**data["request"])
  return Entry(request, data["created"], data["code"], run, data.get("script"))
