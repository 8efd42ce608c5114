"""Autoencoders by their names on the Hugging Face Hub: `org/repo/folder`."""

import dataclasses
import re
from typing import Any

from etils import epath

from jaxsae.errors import UserError
from jaxsae.files import given_path
from jaxsae.formats.format import Path

INSTALL = 'pip install "jaxsae[huggingface]"'
_WORD = r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?"
REPO = rf"{_WORD}/{_WORD}"
REVISION = r"[A-Za-z0-9_][A-Za-z0-9_.-]*"
# No part is hidden or leads out, and none has a wildcard of the Hub's patterns.
_NAME = re.compile(
  rf"(?P<repo>{REPO})(?:@(?P<revision>{REVISION}))?"
  r"(?:/(?P<folder>[A-Za-z0-9_][A-Za-z0-9_.+=,/-]*?))?/?"
)
_FORBIDDEN = re.compile(r"--|\.\.|\.git(?:/|@|$)|//|/\.")
_LONGEST = 96  # characters of a repository's name


@dataclasses.dataclass(frozen=True)
class HubName:
  """What a name on the Hub says; the folder may be a file, or "" for all."""

  repo: str
  revision: str | None
  folder: str

  @classmethod
  def of(cls, path: Path) -> "HubName | None":
    """Returns what a path says as a name; None if it cannot be one."""
    text = str(path)
    found = _NAME.fullmatch(text)
    if not found or _FORBIDDEN.search(text) or len(found["repo"]) > _LONGEST:
      return None
    return cls(found["repo"], found["revision"], found["folder"] or "")

  @property
  def patterns(self) -> list[str] | None:
    """What to download, in the Hub's patterns; None: everything."""
    return [self.folder, f"{self.folder}/*"] if self.folder else None

  @property
  def command(self) -> str:
    """The command that fills the cache."""
    revision = f" --revision {self.revision}" if self.revision else ""
    patterns = "".join(f" --include '{x}'" for x in self.patterns or ())
    return f"hf download {self.repo}{revision}{patterns}"


def local(path: Path, below: bool = True) -> epath.Path:
  """Returns where a path lies here, after a download if it is a Hub's name.

  What exists here, or cannot be a name on the Hub, stays as it is. Without a
  network, or with `HF_HUB_OFFLINE=1`, what is in the Hub's cache is used.

  Args:
    path: a path, or `org/repo[@revision][/folder]`.
    below: also what lies in folders below; otherwise the folder's own files.

  Raises:
    UserError: it is neither here nor on the Hub, or cannot be downloaded.
  """
  here = given_path(path)
  name = HubName.of(path)
  if name is None or here.exists():
    return here
  found = epath.Path(_snapshot(name, below)) / name.folder
  if not found.exists():
    raise UserError(
      f"{path} is not here, and {name.repo} has no such files on the Hub (or,"
      " if that does not answer, in its cache here); give a folder that is"
      f" there, or fill the cache with `{name.command}`."
    )
  return found


def client(path: Path) -> Any:
  """Returns the package `huggingface_hub`, which is optional.

  Raises:
    UserError: it is not installed.
  """
  try:
    import huggingface_hub
    import huggingface_hub.errors
  except ImportError as error:
    raise UserError(
      f"{path} is not here; give a path that exists, or, if it is a name on the"
      f" Hugging Face Hub, `{INSTALL}` first."
    ) from error
  return huggingface_hub


def _snapshot(name: HubName, below: bool) -> str:
  """Downloads what is not in the cache; returns the repository's folder."""
  hub = client(name.repo)
  deeper = f"{name.folder}/*/*" if name.folder else "*/*"
  try:
    return hub.snapshot_download(
      name.repo,
      revision=name.revision,
      allow_patterns=name.patterns,
      ignore_patterns=None if below else deeper,
    )
  except (hub.errors.HTTPError, OSError, ValueError) as error:
    raise _refusal(name, error, hub.errors) from error


def _refusal(name: HubName, error: Exception, errors: Any) -> UserError:
  """Says in one sentence why nothing was downloaded, and what to do."""
  at = f" at {name.revision}" if name.revision else ""
  answer = getattr(error.__cause__ or error, "response", None)
  status = getattr(answer, "status_code", None)
  if isinstance(error, errors.GatedRepoError) or status == 403:
    why = (
      "may be read only by those whom its owners let in; ask for access on its"
      " page, then log in with `hf auth login`"
    )
  elif isinstance(error, errors.RepositoryNotFoundError) or status == 401:
    why = (
      "is neither a folder here nor a repository that you may read on the Hub;"
      " correct the name, or log in with `hf auth login` if it is private"
    )
  elif isinstance(error, errors.RevisionNotFoundError):
    why = "has no such revision on the Hub; give a branch, tag or commit of it"
  elif isinstance(error, errors.LocalEntryNotFoundError):
    why = (
      "is not here, not wholly in the Hub's cache, and the Hub does not answer;"
      f" `{name.command}` downloads it where there is a network"
    )
  else:
    why = f"cannot be downloaded ({_brief(error)}); try again later"
  return UserError(f"{name.repo}{at} {why}.")


def _brief(error: Exception) -> str:
  """Returns the first line of a library's message."""
  return (str(error).strip().splitlines() or [type(error).__name__])[0]
