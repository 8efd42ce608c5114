"""A process that evaluates the lines that a test sends."""

import subprocess
import sys
import time

START = """
import sys
def obey(line):
  try:
    said = eval(line)
  except Exception as error:
    said = f"{type(error).__name__}: {error}"
  print(">", str(said).replace(chr(10), " "), flush=True)
"""
LOOP = """
print("> ready", flush=True)
for line in sys.stdin:
  obey(line)
"""


class Worker:
  """Evaluates the lines that it is sent; `with` kills it at the end."""

  def __init__(self, script: str):
    self.process = subprocess.Popen(
      [sys.executable, "-c", START + script + LOOP],
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      text=True,
    )
    self.pid = self.process.pid
    self.told: list[str] = []  # what it printed besides its answers

  def __enter__(self):
    return self

  def __exit__(self, *_):
    self.process.kill()
    self.process.communicate()

  def say(self, line: str) -> None:
    self.process.stdin.write(line + "\n")
    self.process.stdin.flush()

  def hear(self) -> str:
    """Returns the answer; fails if the process ends without one."""
    for line in self.process.stdout:
      if line.startswith("> "):
        return line[2:].strip()
      self.told.append(line.strip())
    raise AssertionError(f"the worker ended: {self.process.wait()}")

  def do(self, line: str) -> str:
    self.say(line)
    return self.hear()


def until(condition, seconds=60.0) -> None:
  """Waits until a condition holds, and fails after a time limit."""
  end = time.monotonic() + seconds
  while not condition():
    assert time.monotonic() < end
    time.sleep(0.01)
