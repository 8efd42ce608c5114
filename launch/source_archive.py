"""Archives the code to copy: tracked files, with uncommitted changes.

Untracked files are never copied, because secrets and results are among them.
"""

import hashlib
import pathlib
import tarfile

from launch.command import Shell
from launch.errors import LaunchError

ROOT = pathlib.Path(__file__).parents[1]
TAR, DIFF, SCRIPT = "tree.tar", "dirty.diff", "script"


def pack(shell: Shell, folder: pathlib.Path, revision: str | None) -> dict:
  """Writes `tree.tar` and `dirty.diff` into a folder.

  Args:
    folder: an existing folder.
    revision: a git revision; None for the files as they are now.

  Returns:
    What to record: `commit`, `dirty` and the `sha256` of the archive.

  Raises:
    LaunchError: this is not a git checkout, or it has no such revision.
  """
  commit = _git(
    shell, "rev-parse", "--verify", f"{revision or 'HEAD'}^{{commit}}"
  )
  if revision is None:
    diff = _git(shell, "diff", "--binary", "HEAD")
    _write(shell, folder, _tracked(shell), diff)
  else:
    diff = ""
    _git(
      shell, "archive", f"--output={folder / TAR}", commit.strip() or revision
    )
  return {
    "commit": commit.strip(),
    "dirty": bool(diff),
    "sha256": "" if shell.dry else _digest(folder / TAR),
  }


def keep_script(shell: Shell, folder: pathlib.Path, script: str) -> str:
  """Copies the user's script into a folder as `script`, and returns its name.

  New machines get this copy, even if the script has changed since.

  Raises:
    LaunchError: the file does not exist.
  """
  path = pathlib.Path(script)
  if not path.is_file():
    raise LaunchError(
      f"--script={script}: there is no such file; give the path of a program."
    )
  if not shell.dry:
    (folder / SCRIPT).write_bytes(path.read_bytes())
  return path.name


def check_contains(shell: Shell, experiment: str) -> None:
  """Raises LaunchError unless the experiment is a file that is copied."""
  path = pathlib.PurePath(experiment)
  if path.is_absolute() or ".." in path.parts:
    raise LaunchError(f"{experiment}: give the path from {ROOT}.")
  if not (ROOT / experiment).is_file():
    files = sorted(ROOT.glob("experiments/*.py"))
    there = [str(file.relative_to(ROOT)) for file in files]
    raise LaunchError(
      f"{experiment} is not a file in {ROOT}; choose one of {', '.join(there)}."
    )
  if not shell.dry and experiment not in _tracked(shell):
    raise LaunchError(
      f"{experiment} is not tracked by git, so it is not copied; `git add` it"
      " and run `setup` again."
    )


def _tracked(shell: Shell) -> list[str]:
  listed = _git(shell, "ls-files", "-z").split("\0")
  return sorted(path for path in listed if path and (ROOT / path).exists())


def _write(shell: Shell, folder, paths: list[str], diff: str) -> None:
  """Writes an archive that depends on the files only, so it can be reused."""
  if shell.dry:
    return
  with tarfile.open(folder / TAR, "w") as tar:
    for path in paths:
      tar.add(ROOT / path, path, recursive=False, filter=_bare)
  (folder / DIFF).write_text(diff, encoding="utf-8")


def _bare(member: tarfile.TarInfo) -> tarfile.TarInfo:
  member.mtime = member.uid = member.gid = 0
  member.uname = member.gname = ""
  return member


def _digest(file: pathlib.Path) -> str:
  with open(file, "rb") as opened:
    return hashlib.file_digest(opened, "sha256").hexdigest()


def _git(shell: Shell, *words: str) -> str:
  done = shell.run(["git", "-C", str(ROOT), *words])
  if done.status:
    raise LaunchError(
      f"`git {' '.join(words)}` failed in {ROOT} ({done.err.strip()}); launch"
      " from a git checkout, and name a revision that it has."
    )
  return done.out
