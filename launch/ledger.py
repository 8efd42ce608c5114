"""What was created from this machine: one file a name, kept between commands.

~/.jaxsae/launch/NAME.json    what was asked for, the code, the run
~/.jaxsae/launch/NAME/        the tree that was copied, and how it differed
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
  """A run, and each time it was started.

  Attributes:
    id: chosen once, and the same for each attempt.
    argv: the experiment's file and its flags.
    workdir: where its checkpoints are.
    env: variables.
    attempts: of each its `number`, when it `started`, and `why`.
  """

  id: str
  argv: list[str]
  workdir: str
  env: dict[str, str] = dataclasses.field(default_factory=dict)
  attempts: list[dict] = dataclasses.field(default_factory=list)

  def attempt(self, why: str) -> int:
    """Writes down another start; its number."""
    number = len(self.attempts) + 1
    self.attempts.append({"number": number, "started": now(), "why": why})
    return number


@dataclasses.dataclass
class Entry:
  """What is known of a name.

  Attributes:
    request: what was asked for.
    created: when.
    code: of the tree that was copied: `commit`, `dirty`, `sha256`.
    run: the last that was started.
  """

  request: Request
  created: str
  code: dict | None = None
  run: Run | None = None

  @property
  def name(self) -> str:
    """Of the slices."""
    return self.request.name


class Ledger:
  """A folder of entries.

  Args:
    folder: made when something is written.
    dry: read only.
  """

  def __init__(self, folder=DEFAULT, dry: bool = False):
    self._folder = pathlib.Path(folder).expanduser()
    self._dry = dry

  def folder(self, name: str) -> pathlib.Path:
    """For what belongs to a name; made if it does not exist."""
    path = self._folder / name
    if not self._dry:
      path.mkdir(parents=True, exist_ok=True)
    return path

  def names(self) -> list[str]:
    """Of all entries."""
    return sorted(path.stem for path in self._folder.glob("*.json"))

  def read(self, name: str | None) -> Entry:
    """The entry of a name; where there is only one, no name is needed.

    Raises:
      LaunchError: there is none, or no one name.
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
    """Whole, or as it was before; for nobody else to read."""
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
    """Forgets a name, and what belonged to it."""
    if not self._dry:
      self._file(name).unlink(missing_ok=True)
      shutil.rmtree(self._folder / name, ignore_errors=True)

  def _file(self, name: str) -> pathlib.Path:
    return self._folder / f"{name}.json"


def now() -> str:
  """The time, for a person."""
  return f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M:%S} UTC"


def _entry(data: dict) -> Entry:
  run = data["run"] and Run(**data["run"])
  return Entry(Request(**data["request"]), data["created"], data["code"], run)
