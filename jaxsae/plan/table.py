"""Prints a plan as tables, within 80 columns.

What matters most stands first, for narrow terminals leave out the last columns.
"""

from collections.abc import Iterator, Mapping, Sequence

from rich import box
from rich.table import Table

from jaxsae.chips import GIB
from jaxsae.plan.communication import BytesSent
from jaxsae.plan.parts import COMPILED
from jaxsae.plan.plan import Plan
from jaxsae.plan.run_set import RunSet
from jaxsae.plan.search import Candidate
from jaxsae.plan.stages import ASSUMED


def of_plan(name: str, plan: Plan) -> Iterator[str | Table]:
  """Yields the lines and tables for one run."""
  yield _title(name, plan)
  yield verdict(plan)
  if plan.evaluation is not None:
    yield _evaluation_verdict(plan)
  if plan.error:
    return
  yield _memory(plan)
  yield _step(plan)
  yield from _placements(plan)
  if plan.sent is not None:
    yield _sent(plan.sent)
  yield _run(plan)
  yield _stages(plan)
  yield f"{ASSUMED}{_storage_source(plan)}"


def _title(name: str, plan: Plan) -> str:
  slices, (data, model) = plan.slices, plan.shape
  return (
    f"Prediction for {name} on {slices}: {slices.chips} chips,"
    f" {slices.devices} devices as {data} x {model} (data x model)."
    " Nothing here was measured on a TPU."
  )


def verdict(plan: Plan) -> str:
  """Returns a sentence that says whether the run fits."""
  room = f"{plan.capacity / GIB:.2f} GiB"
  if plan.error:
    return f"It does not fit: {plan.error}"
  if plan.memory.known > plan.capacity:
    return (
      f"It does not fit: weights, moments and bucket alone take"
      f" {plan.memory.known / GIB:.2f} GiB of a device's {room}."
    )
  if plan.compilation is None:
    return f"Only --compile=true can say whether it fits a device's {room}."
  if plan.needed is None:
    return f"It does not fit a device's {room}: an array is too large."
  if not plan.fits:
    return (
      f"It does not fit: a device needs {plan.needed / GIB:.2f} GiB and has"
      f" {room}."
    )
  share = plan.needed / plan.capacity
  return (
    f"It fits: a device needs {plan.needed / GIB:.2f} of {room} ({share:.0%})."
  )


def _evaluation_verdict(plan: Plan) -> str:
  """Returns a sentence that says whether the evaluation afterwards fits."""
  assert plan.evaluation is not None
  room, needed = f"{plan.capacity / GIB:.2f} GiB", plan.evaluation.needed
  if plan.evaluation_fits and needed is not None:
    return f"So does its evaluation: {needed / GIB:.2f} of {room}."
  size = "more" if needed is None else f"{needed / GIB:.2f} GiB"
  return (
    f"Its evaluation does not fit: a device needs {size} and has {room}; split"
    " the weights over more devices with --mesh.model or --fsdp=true."
  )


def _memory(plan: Plan) -> Table:
  memory, capacity = plan.memory, plan.capacity
  made = _table("Memory of a device", ("", "GiB", "share"))
  rows = {
    "language model": memory.lm,
    "autoencoders": memory.saes,
    "moments": memory.moments,
    "bucket of activations": memory.bucket,
    "temporaries and program": memory.temporaries,
    "headroom": plan.headroom,
  }
  for name, size in rows.items():
    if size is not None:
      made.add_row(name, f"{size / GIB:.2f}", f"{size / capacity:.1%}")
  return made


def _step(plan: Plan) -> Table:
  made = _table(
    f"A step: {plan.config.bucket_tokens:,} tokens,"
    f" {plan.config.updates_per_bucket} updates, on one device",
    (
      "",
      "TFLOP",
      "HBM GB",
      "sent GB",
      "compute",
      "memory",
      "comm.",
      "bound by",
    ),
    caption="Milliseconds at the maker's peaks. A part takes the longest of the"
    " three if they overlap, and their sum if they do not.",
  )
  for part in plan.roofline.parts:
    times = (part.compute, part.memory, part.communication)
    made.add_row(
      part.name,
      f"{part.flops / 1e12:.3g}",
      f"{part.traffic / 1e9:.3g}",
      f"{part.sent / 1e9:.3g}",
      *(f"{1e3 * seconds:.1f}" for seconds in times),
      part.bound.replace("communication", "comm."),
    )
  return made


def _placements(plan: Plan) -> Iterator[str]:
  yield "Placements, and why:"
  for part in plan.roofline.parts:
    why = f" ({part.why})" if part.why else ""
    if part.where != COMPILED:
      yield f"  {part.name}: {part.where}{why}"


def _sent(sent: BytesSent) -> Table:
  made = _table(
    "Sent by a device in one step",
    ("collective", "along", "MB"),
  )
  sizes = sorted(sent.within.items(), key=lambda item: -item[1])
  for (kind, axis), size in sizes:
    if size >= 5e4:
      made.add_row(kind, axis, f"{size / 1e6:,.1f}")
  if sent.between:
    made.add_row("all", "slices", f"{sent.between / 1e6:,.1f}")
  made.add_row("", "", f"{sent.total / 1e6:,.1f}")
  return made


def _run(plan: Plan) -> Table:
  made = _table(
    f"The run: {plan.config.tokens:,} tokens in {plan.config.steps:,} steps",
    ("", "at best", "no overlap"),
    caption="Training only, at the maker's peaks, which no program reaches.",
  )
  made.add_row(
    "step, seconds",
    f"{plan.step_seconds:.4g}",
    f"{plan.step_seconds_without_overlap:.4g}",
  )
  slower = plan.step_seconds / plan.step_seconds_without_overlap
  made.add_row(
    "tokens a second",
    f"{plan.tokens_per_second:,.0f}",
    f"{slower * plan.tokens_per_second:,.0f}",
  )
  made.add_row(
    "share of peak FLOP/s",
    f"{plan.share_of_peak:.0%}",
    f"{slower * plan.share_of_peak:.0%}",
  )
  made.add_row(
    "time", duration(plan.hours), duration(plan.hours_without_overlap)
  )
  made.add_row(
    "chip-hours",
    figure(plan.chip_hours),
    figure(plan.chip_hours_without_overlap),
  )
  for row in _money(plan):
    made.add_row(*row)
  made.add_row("checkpoint", size_of(plan.checkpoint), "")
  made.add_row("export", size_of(plan.export), "")
  if plan.compilation is not None:
    made.add_row("compiled here in", f"{plan.compilation.seconds:.0f} s", "")
  return made


def _stages(plan: Plan) -> Table:
  price, storage = plan.price, plan.storage
  unit = price.currency if price else "money"
  made = _table(
    "Besides training",
    ("", "time", "bytes", unit, f"{unit} a month"),
    caption="Starting and compiling come on top.",
  )
  for stage in plan.stages:
    money = stage.money(price, plan.slices.chips)
    monthly = stage.money_a_month(storage)
    made.add_row(
      stage.name,
      _seconds(stage.seconds),
      size_of(int(stage.size)) if stage.size else "",
      "" if not stage.waits else "?" if money is None else f"{money:,.2f}",
      "" if not stage.stored else "?" if monthly is None else f"{monthly:,.2f}",
    )
  return made


def _seconds(seconds: float) -> str:
  return f"{seconds:.3g} s" if seconds < 60 else duration(seconds / 3600)


def _storage_source(plan: Plan) -> str:
  storage = plan.storage
  if storage is None:
    return ""
  return (
    f" A GiB in {storage.storage} ({storage.region}) is {storage.gib_month:g}"
    f" {storage.currency} a month, read {storage.date}: {storage.source}."
  )


def _money(plan: Plan) -> Iterator[Sequence[str]]:
  price = plan.price
  if price is None:
    yield "money", f"no price of {plan.slices.kind.name} is known", ""
    return
  unit = price.currency
  yield (
    f"{unit} on demand",
    f"{plan.money:,.2f}",
    f"{plan.money_without_overlap:,.2f}",
  )
  if price.spot is not None:
    slow = plan.chip_hours_without_overlap * price.spot
    yield f"{unit} as spot", f"{plan.money_spot:,.2f}", f"{slow:,.2f}"


def source(plan: Plan) -> str:
  """Returns a sentence that says where the price is from."""
  price = plan.price
  if price is None:
    return (
      f"There is no price of {plan.slices.kind.name}; add one, with its source,"
      " to a copy of jaxsae/plan/prices.json and give it as --prices=FILE."
    )
  spot = "" if price.spot is None else f", {price.spot:g} as spot"
  return (
    f"Price: {price.on_demand:g} {price.currency} a chip-hour{spot}, in"
    f" {price.region}, read {price.date}: {price.source}."
  )


def of_candidates(candidates: Sequence[Candidate], title: str) -> Table:
  """Returns a table of flags to add, and the plan with each."""
  made = _table(title, ("add", "HBM GiB", "step s", "time", "on demand"))
  for one in candidates:
    plan = one.plan
    size = "?" if plan.needed is None else f"{plan.needed / GIB:.2f}"
    made.add_row(
      str(one),
      size if plan.fits else f"{size}, no",
      f"{plan.step_seconds:.3g}",
      duration(plan.hours),
      amount(plan.money, plan),
    )
  return made


def of_slices(plans: Mapping[str, Plan]) -> Table:
  """Returns a table of one run on several kinds of slice."""
  made = _table(
    "Compared",
    ("slice", *_COMPARED, "chips"),
  )
  for name, plan in plans.items():
    made.add_row(name, *_compared(plan), str(plan.slices.chips))
  return made


_COMPARED = ("fits", "time", "on demand", "HBM", "step s", "tokens/s")


def _compared(plan: Plan) -> Sequence[str]:
  if plan.error:
    return ("no", "", "", "", "", "")
  used = "?" if plan.needed is None else f"{plan.needed / plan.capacity:.0%}"
  return (
    {True: "yes", False: "no", None: "?"}[plan.fits],
    duration(plan.hours),
    amount(plan.money, plan),
    used,
    f"{plan.step_seconds:.3g}",
    f"{plan.tokens_per_second:,.0f}",
  )


def of_run_set(runs: RunSet) -> Iterator[str | Table]:
  """Yields the lines and tables for all runs of an experiment."""
  yield (
    f"Prediction for {len(runs.plans)} runs on {runs.slices}."
    " Nothing here was measured on a TPU."
  )
  made = _table("Runs", ("run", *_COMPARED))
  for name, plan in runs.plans.items():
    made.add_row(name, *_compared(plan))
  yield made
  for name, other in runs.stand_ins.items():
    yield f"  {name} was not compiled; {other} stands in for its memory"
  plan = next(iter(runs.plans.values()))
  if runs.chip_hours is None or runs.hours is None:
    yield "There are no sums, because some runs are impossible."
    return
  yield (
    f"In total {runs.chip_hours:,.0f} chip-hours,"
    f" {amount(runs.money, plan)} on demand"
    f" ({amount(runs.money_without_overlap, plan)} if nothing overlaps),"
    f" {amount(runs.money_spot, plan)} as spot."
  )
  yield (
    f"With {len(runs.shares)} at once: {duration(runs.hours)}. {_shares(runs)}"
  )
  yield (
    "Each autoencoder as a run of its own, with its own forward passes:"
    f" {runs.unshared_chip_hours:,.0f} chip-hours,"
    f" {amount(runs.unshared_money, plan)}."
  )


def _shares(runs: RunSet) -> str:
  if len(runs.shares) == 1:
    return ""
  return " ".join(
    f"{number}: {' '.join(share) or 'nothing'}."
    for number, share in enumerate(runs.shares, 1)
  )


def amount(value: float | None, plan: Plan) -> str:
  """Formats an amount of money, which is None if no price is known."""
  if value is None or plan.price is None:
    return "no price"
  return f"{value:,.2f} {plan.price.currency}"


def duration(hours: float) -> str:
  """Formats hours: 0.5 → 30 min; 30 → 30.0 h; 300 → 12.5 days."""
  if hours < 1:
    return f"{60 * hours:.3g} min"
  return f"{hours:.1f} h" if hours < 48 else f"{hours / 24:.1f} days"


def figure(value: float) -> str:
  """Formats a number with at least three digits: 0.00123, 12.3, 1,235."""
  return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def size_of(size: int) -> str:
  """Formats bytes in the largest unit that they fill."""
  for unit, name in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB")):
    if size >= unit:
      return f"{size / unit:.2f} {name}"
  return f"{size / 1e3:.1f} kB"


def _table(
  title: str, heads: Sequence[str], caption: str | None = None
) -> Table:
  made = Table(
    title=title,
    title_justify="left",
    box=box.SIMPLE_HEAD,
    show_edge=False,
    pad_edge=False,
    padding=(0, 1, 0, 0),
    caption=caption,
    caption_justify="left",
  )
  made.add_column(heads[0], overflow="fold")
  for head in heads[1:]:
    made.add_column(head, justify="right", no_wrap=True)
  return made
