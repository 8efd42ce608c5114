"""Records what was created from this machine, in one file per name.

~/.jaxsae/launch/NAME.json    the request, the code and the run
~/.jaxsae/launch/NAME/        what was copied: the archive, the user's script;
                              and the uncommitted diff
"""

import dataclasses
import datetime
import json
import os
import pathlib
import shutil

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

  Args:
    folder: where the entries are; created when first needed.
    dry: whether writing is disabled.
  """

  def __init__(self, folder=DEFAULT, dry: bool = False):
    self._folder = pathlib.Path(folder).expanduser()
    self._dry = dry

  def folder(self, name: str) -> pathlib.Path:
    """Returns the folder of a name, created if it does not exist."""
    path = self._folder / name
    if not self._dry:
      path.mkdir(parents=True, exist_ok=True)
    return path

  def names(self) -> list[str]:
    """Returns the names of all entries."""
    return sorted(path.stem for path in self._folder.glob("*.json"))

  def read(self, name: str | None) -> Entry:
    """Returns the entry of a name, or the only entry if no name is given.

    Raises:
      LaunchError: no such entry exists, or a name is needed.
    """
    names = self.names()
    if name is None and len(names) == 1:
      name = names[0]
    if name not in names:
      there = f"there are {', '.join(names)}" if names else "there is none yet"
      raise LaunchError(
        f"{name or 'NAME'} was not created from here ({there}); give a NAME, or"
        " make one with `python -m launch create NAME …`."
      )
    return _entry(json.loads(self._file(name).read_text(encoding="utf-8")))

  def write(self, entry: Entry) -> None:
    """Writes an entry atomically, readable by its owner only."""
    if self._dry:
      return
    self._folder.mkdir(parents=True, exist_ok=True)
    file = self._file(entry.name)
    partial = file.with_suffix(".partial")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(descriptor, "w", encoding="utf-8") as out:
      json.dump(dataclasses.asdict(entry), out, indent=2)
    os.replace(partial, file)

  def remove(self, name: str) -> None:
    """Removes a name's entry and folder."""
    if not self._dry:
      self._file(name).unlink(missing_ok=True)
      shutil.rmtree(self._folder / name, ignore_errors=True)

  def _file(self, name: str) -> pathlib.Path:
    return self._folder / f"{name}.json"


def now() -> str:
  """Returns the current time in UTC as text."""
  return f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M:%S} UTC"


def _entry(data: dict) -> Entry:
  run = data["run"] and Run(**data["run"])
  request = Request(**data["request"])
  return Entry(request, data["created"], data["code"], run, data.get("script"))
