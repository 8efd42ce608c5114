"""Reads from its HLO what a compiled step sends between devices.

A collective is counted once, however often the text repeats it: the TPU's
compiler writes one that overlaps with other work into several fusions.
"""

import collections
import dataclasses
import math
import re
from collections.abc import Iterable, Iterator, Set

import numpy as np

from jaxsae.train.step import READS, UPDATES

Program = dict[str, list[str]]  # the lines of each computation, by name

_KINDS = (
  "all-reduce|all-gather|reduce-scatter|all-to-all|ragged-all-to-all"
  "|collective-permute"
)
_COLLECTIVE = re.compile(
  rf"^\s*(?:ROOT )?%?\S+ = (?P<shape>.*?) (?P<kind>{_KINDS})(?:-start)?\("
)
# Between slices, data goes through the hosts.
_SEND = re.compile(
  r"^\s*(?:ROOT )?%?\S+ = \((?P<shape>[^,]*\[[\d,]*\])\S*, .*? send\(.*"
  r'_megascale_target="\{(?P<slices>[\d,:]+)\}x.*'
  r'_megascale_transfer_type="(?P<kind>\w+)"'
)
_HEAD = re.compile(r"^(?:ENTRY )?%?(?P<name>[^\s(]+) \(.*\{$")
_CALLED = re.compile(
  r"(?:calls|to_apply|body|condition)=%?([^\s,)}]+)"
  r"|branch_computations=\{([^}]*)\}"
)
_ARRAY = re.compile(r"\b(pred|bf16|[a-z]+(\d+)\w*)\[([\d,]*)\]")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')


@dataclasses.dataclass(frozen=True)
class Collective:
  """A collective operation, as one device sees it.

  Attributes:
    kind: HLO's name for it, as in all-gather.
    bytes: size of its input or of its output, whichever is larger.
    devices: number of devices in a group.
    times: how often it runs in one pass through the part of the program read.
    group: the first group of devices, or the first pair of a permute, as
      positions in the flattened mesh of one slice; empty if all take part.
    between_slices: whether it sends to other slices; `devices` are then slices.
  """

  kind: str
  bytes: int
  devices: int
  times: int = 1
  group: tuple[int, ...] = dataclasses.field(default=(), compare=False)
  between_slices: bool = False

  @property
  def sent(self) -> float:
    """Bytes that a device sends in all, if devices form a ring."""
    if self.kind == "collective-permute":
      return self.times * self.bytes
    passes = 2 if self.kind == "all-reduce" else 1
    share = (self.devices - 1) / self.devices
    return self.times * passes * share * self.bytes


def in_updates(text: str) -> list[Collective]:
  """Returns the collectives of one update, in the loop that step.py names.

  Args:
    text: `compiled.as_text()`. A bucket of a single update has no such loop.
  """
  return _in_loop(text, UPDATES)


def in_reads(text: str) -> list[Collective]:
  """Returns the collectives of one microbatch; none if it is a whole bucket."""
  return _in_loop(text, READS)


def outside(text: str, *scopes: str) -> list[Collective]:
  """Returns the collectives outside loops of these scopes, or of `UPDATES`."""
  program = _computations(text)
  inside = {
    line for scope in scopes or (UPDATES,) for line in _loops(program, scope)
  }
  return _unique(_reachable(program, _entry(text), 1, inside))


def total(found: list[Collective]) -> dict[str, float]:
  """Returns the bytes sent by each kind of collective."""
  sums = collections.defaultdict(float)
  for one in found:
    sums[one.kind] += one.sent
  return dict(sums)


def _in_loop(text: str, scope: str) -> list[Collective]:
  program = _computations(text)
  return _unique(
    found
    for line in _loops(program, scope)
    for found in _reachable(program, _body(line), 1)
  )


def _computations(text: str) -> Program:
  """Returns the lines of each computation, by its name."""
  program, lines = {}, []
  for line in text.splitlines():
    if head := _HEAD.match(line):
      lines = program.setdefault(head["name"], [])
    else:
      lines.append(line)
  return program


def _entry(text: str) -> str:
  return _first(r"(?m)^ENTRY %?([^\s(]+)", text)


def _loops(program: Program, scope: str) -> Iterator[str]:
  """Yields the instructions of the loops of a scope.

  A loop that the compiler has rewritten is recognised by its body.
  """
  for lines in program.values():
    for line in lines:
      if " while(" in line and _is_in_scope(program, line, scope):
        yield line


def _is_in_scope(program: Program, line: str, scope: str) -> bool:
  if "op_name=" in line:
    return f'/{scope}/while"' in line
  body = program.get(_body(line), ())
  return any(f"/{scope}/while/body/" in inner for inner in body)


def _body(line: str) -> str:
  return _first(r"body=%?([^\s,)}]+)", line)


def _first(pattern: str, text: str) -> str:
  match = re.search(pattern, text)
  assert match is not None, f"{pattern} is not in {text[:200]}"
  return match[1]


def _reachable(
  program: Program, name: str, times: int, skip: Set[str] = frozenset()
) -> Iterator[tuple[str, Collective]]:
  """Yields (channel, collective) in a computation and in all that it calls."""
  for line in program.get(name, ()):
    if line in skip:
      continue
    if match := _COLLECTIVE.match(line):
      yield _read(match, line, times, scatters="all-reduce-scatter" in name)
    if match := _SEND.match(line):
      yield line, _between_slices(match, times)
    trips = _TRIPS.search(line)
    inner = times * int(trips[1]) if trips else times
    for single, several in _CALLED.findall(line):
      for called in re.findall(r"[^\s,%]+", single or several):
        yield from _reachable(program, called, inner, skip)


def _read(
  match: re.Match, line: str, times: int, scatters: bool
) -> tuple[str, Collective]:
  kind = "reduce-scatter" if scatters else match["kind"]
  sizes = [_size(*found) for found in _ARRAY.findall(match["shape"])]
  started = f"{match['kind']}-start(" in line
  # The shape of a start has operands, results and more.
  size = max(sizes) if started else sum(sizes)
  devices = _devices(line)
  if match["kind"] == "reduce-scatter" and not started:
    size *= devices
  channel = re.search(r"channel_id=(\d+)", line)
  key = channel[1] if channel else line
  return key, Collective(kind, size, devices, times, _group(line))


def _between_slices(match: re.Match, times: int) -> Collective:
  kind = match["kind"].lower().replace("_", "-")
  (size,) = (_size(*found) for found in _ARRAY.findall(match["shape"]))
  slices = _count(match["slices"])
  if kind == "all-gather":  # the shape is one slice's part
    size *= slices
  if kind == "one-to-one":
    kind = "collective-permute"
  return Collective(kind, size, slices, times, between_slices=True)


def _count(indices: str) -> int:
  """Counts indices and ranges of them: `1,2` → 2; `0:7` → 8."""
  ranges = [list(map(int, part.split(":"))) for part in indices.split(",")]
  return sum(ends[-1] - ends[0] + 1 for ends in ranges)


def _size(dtype: str, bits: str, dims: str) -> int:
  width = {"pred": 8, "bf16": 16}.get(dtype) or int(bits)
  count = math.prod(int(n) for n in dims.split(",") if n)
  return count * width // 8


def _devices(line: str) -> int:
  """Returns the number of devices in a group; a permute has pairs."""
  if groups := re.search(r"replica_groups=\[\d+,(\d+)\]", line):
    return int(groups[1])
  if groups := re.search(r"replica_groups=\{\{([\d,]+)\}", line):
    return groups[1].count(",") + 1
  if groups := re.search(
    r"replica_groups=mesh\[(.*?)\](?:, device_ids=\(.*?\))? \{(.*?)\}", line
  ):
    sizes = dict(re.findall(r"('\w+')=(\d+)", groups[1]))
    used = re.findall(r"('\w+')(?::\(\d+\)(\d+))?", groups[2])
    return math.prod(int(part or sizes[axis]) for axis, part in used)
  return 2


def _group(line: str) -> tuple[int, ...]:
  """Returns a collective's first group, or the first pair of a permute."""
  if listed := re.search(r"replica_groups=\{\{([\d,]+)\}", line):
    return tuple(_numbers(listed[1]))
  if pairs := re.search(r"source_target_pairs=\{(\{.*?\})\}", line):
    moves = [_numbers(pair) for pair in pairs[1].split("},{")]
    return tuple(next((move for move in moves if len(set(move)) > 1), ()))
  if grid := re.search(
    r"replica_groups=(\[\d+,\d+\])<=(\[[\d,]+\](?:T\([\d,]+\))?)", line
  ):
    groups = _device_order(grid[2]).reshape(_numbers(grid[1]))
    return tuple(groups[0].tolist())
  if named := re.search(
    r"replica_groups=mesh\[(.*?)\](?:, device_ids=\((.*?\))\))? \{(.*?)\}",
    line,
  ):
    return _along(*named.groups())
  return ()


def _along(mesh: str, ids: str | None, used: str) -> tuple[int, ...]:
  """Returns the first group along some axes of a mesh.

  As in `'axis_0'=4,'axis_1'=2`, `[2,4]T(1,0)` and `'axis_0'`. `'axis_0':(2)4`
  is a part of an axis: with the axis as [2, 4, …], the part of size four.
  """
  shape, group = [], []
  parts = {
    axis: (int(before or 1), int(size or 0))
    for axis, before, size in re.findall(r"('\w+')(?::\((\d+)\)(\d+))?", used)
  }
  for axis, size in re.findall(r"('\w+')=(\d+)", mesh):
    before, part = parts.get(axis, (1, 1))
    part = part or int(size)
    shape += [before, part, int(size) // before // part]
    group += [0, slice(None) if axis in parts else 0, 0]
  devices = np.arange(math.prod(shape)) if ids is None else _device_order(ids)
  return tuple(devices.reshape(shape)[tuple(group)].ravel().tolist())


def _device_order(order: str) -> np.ndarray:
  """Reads `[2,4]T(1,0)`: 0 … 7 as [2, 4], with its axes in that order."""
  shape, _, axes = order.partition("T")
  shape = _numbers(shape)
  devices = np.arange(math.prod(shape)).reshape(shape)
  return devices.transpose(_numbers(axes)) if axes else devices


def _numbers(text: str) -> list[int]:
  return [int(n) for n in re.findall(r"\d+", text)]


def _unique(found: Iterable[tuple[str, Collective]]) -> list[Collective]:
  """Returns one collective for each channel."""
  return list(dict(found).values())
