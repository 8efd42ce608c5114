"""Writes a plan as JSON, under names that scripts rely on.

Sizes are in bytes, times in seconds (or hours, as named), money in `currency`;
unknown values are null. All values are predictions.
"""

import importlib.metadata
import json
import os
import pathlib
from collections.abc import Mapping, Sequence

import jax

from jaxsae.files import given_path, whole_file
from jaxsae.plan.compiler_process import LIBRARY
from jaxsae.plan.plan import Plan
from jaxsae.plan.roofline import Part
from jaxsae.plan.run_set import RunSet
from jaxsae.plan.search import Candidate


def of_plan(plan: Plan) -> dict:
  """Returns the plan of one run on some slices."""
  return {
    "prediction": True,
    "topology": plan.slices.topology,
    "slices": plan.slices.count,
    "chips": plan.slices.chips,
    "devices": plan.slices.devices,
    "device_kind": plan.slices.kind.device_kind,
    "mesh": {"data": plan.shape[0], "model": plan.shape[1]},
    "versions": versions(),
    **_memory(plan),
    **_work(plan),
    **(_time(plan) if not plan.error else dict.fromkeys(_TIMES)),
    "evaluation": _evaluation(plan),
    "stages": _stages(plan),
    "storage_price": plan.storage and vars(plan.storage),
    "checkpoint_bytes": plan.checkpoint,
    "export_bytes": plan.export,
    "compile_seconds": plan.compilation and plan.compilation.seconds,
  }


_TIMES = (
  "step_seconds_roofline",
  "step_seconds_without_overlap",
  "tokens_per_second",
  "share_of_peak",
  "hours",
  "hours_without_overlap",
  "chip_hours",
  "chip_hours_without_overlap",
  "cost",
  "cost_without_overlap",
  "cost_spot",
  "currency",
  "price",
)


def _memory(plan: Plan) -> dict:
  memory = plan.memory
  return {
    "fits": plan.fits,
    "misfit": plan.error or None,
    "hbm_bytes_per_device": plan.needed,
    "hbm_capacity_bytes": int(plan.capacity),
    "hbm_by_owner": {
      "lm": memory.lm,
      "saes": memory.saes,
      "moments": memory.moments,
      "bucket": memory.bucket,
      "temporaries": memory.temporaries,
      "headroom": plan.headroom,
    },
  }


def _work(plan: Plan) -> dict:
  roofline, sent = plan.roofline, plan.sent
  return {
    "flops_per_device_per_step": roofline.flops,
    "hbm_traffic_bytes_per_device_per_step": roofline.traffic,
    "collective_bytes_per_device_per_step": sent.total if sent else None,
    "collective_bytes_predicted": plan.predicted_sent,
    "collectives": _collectives(plan),
    "parts": [_part(part) for part in roofline.parts],
    "tokens_per_step": plan.config.bucket_tokens,
    "steps": plan.config.steps,
  }


def _collectives(plan: Plan) -> list[dict] | None:
  if plan.sent is None:
    return None
  made = [
    {"kind": kind, "axis": axis, "bytes": size}
    for (kind, axis), size in plan.sent.within.items()
  ]
  if plan.sent.between:
    made.append({"kind": "all", "axis": "slices", "bytes": plan.sent.between})
  return made


def _part(part: Part) -> dict:
  return {
    "name": part.name,
    "placement": part.where,
    "why": part.why,
    "flops": part.flops,
    "hbm_traffic_bytes": part.traffic,
    "sent_bytes": part.sent,
    "compute_seconds": part.compute,
    "memory_seconds": part.memory,
    "communication_seconds": part.communication,
    "seconds": part.seconds,
    "bound": part.bound,
  }


def _time(plan: Plan) -> dict:
  price = plan.price
  values = (
    plan.step_seconds,
    plan.step_seconds_without_overlap,
    plan.tokens_per_second,
    plan.share_of_peak,
    plan.hours,
    plan.hours_without_overlap,
    plan.chip_hours,
    plan.chip_hours_without_overlap,
    plan.money,
    plan.money_without_overlap,
    plan.money_spot,
    price and price.currency,
    price and vars(price),
  )
  return dict(zip(_TIMES, values, strict=True))


def _evaluation(plan: Plan) -> dict:
  found, work = plan.evaluation, plan.evaluating
  return {
    "fits": plan.evaluation_fits,
    "hbm_bytes_per_device": found and found.needed,
    "compile_seconds": found and found.seconds,
    **({k: v for k, v in _part(work).items() if k in _WORK} if work else {}),
  }


_WORK = ("flops", "hbm_traffic_bytes", "sent_bytes", "seconds", "bound")


def _stages(plan: Plan) -> list[dict]:
  return [
    {
      "name": stage.name,
      "seconds": stage.seconds,
      "bytes": stage.size,
      "cost": stage.money(plan.price, plan.slices.chips),
      "cost_per_month": stage.money_a_month(plan.storage),
    }
    for stage in plan.stages
  ]


def of_run_set(runs: RunSet) -> dict:
  """Returns the plans of all runs of an experiment, and their sums.

  Memory is that of the run that needs most, or null unless all were compiled.
  """
  found = [plan.needed for plan in runs.plans.values()]
  needed = [size for size in found if size is not None]
  return {
    "prediction": True,
    "topology": runs.slices.topology,
    "slices": runs.slices.count,
    "chips": runs.slices.chips,
    "hbm_bytes_per_device": max(needed) if needed == found else None,
    "hbm_capacity_bytes": int(runs.slices.kind.hbm),
    "runs": {name: of_plan(plan) for name, plan in runs.plans.items()},
    "compiled_as": runs.stand_ins,
    "fits": runs.fits,
    "chip_hours": runs.chip_hours,
    "chip_hours_without_overlap": runs.chip_hours_without_overlap,
    "cost": runs.money,
    "cost_without_overlap": runs.money_without_overlap,
    "cost_spot": runs.money_spot,
    "currency": runs.currency,
    "at_once": len(runs.shares),
    "shares": runs.shares,
    "hours": runs.hours,
    "chip_hours_without_sharing": runs.unshared_chip_hours,
    "cost_without_sharing": runs.unshared_money,
  }


def of_candidates(candidates: Sequence[Candidate]) -> list[dict]:
  """Returns what a search compiled, best first."""
  return [
    {
      "flags": list(one.flags),
      "fits": one.plan.fits,
      "hbm_bytes_per_device": one.plan.needed,
      "step_seconds_roofline": one.plan.step_seconds,
      "cost": one.plan.money,
    }
    for one in candidates
  ]


def versions() -> dict[str, str | None]:
  """Returns the versions of the software that made the plan."""
  return {"jax": jax.__version__, "libtpu": _libtpu()}


def _libtpu() -> str | None:
  """Returns libtpu's version, from the folder of its distribution beside it."""
  library = os.environ.get(LIBRARY)
  if library is None:
    return importlib.metadata.version("libtpu")
  beside = pathlib.Path(library).parents[1].glob("libtpu-*.dist-info")
  return next((folder.stem.partition("-")[2] for folder in beside), None)


def write(path: str, content: Mapping) -> None:
  """Writes the whole file, or nothing."""
  with whole_file(given_path(path)) as partial:
    text = json.dumps(content, indent=2, allow_nan=False)
    partial.write_text(text + "\n", encoding="utf-8")
