"""Compares a plan's predicted cost with the limit that the user set."""

import json
import pathlib

from launch.errors import LaunchError
from launch.request import Request

_GIB = 2**30


def check(
  request: Request, file: str | None, max_cost: float | None, agreed: bool
) -> str:
  """Returns the estimate as lines of text, or refuses to go over the limit.

  Args:
    file: a plan written by `jaxsae plan --json`; None if there is none.
    max_cost: limit in US dollars, above which the user has to agree.
    agreed: the user agreed, by --yes.

  Raises:
    LaunchError: the plan is for other slices or does not fit them, or the cost
      is unknown or above the limit and the user has not agreed.
  """
  if file is None:
    summary = "no plan, so no estimate of the cost"
    objection = "without --plan=FILE the cost is not known"
  else:
    plan = _read(file)
    _check_same(request, plan, file)
    summary, objection = _summary(plan), _objection(plan, max_cost)
  if max_cost is not None and objection and not agreed:
    raise LaunchError(
      f"--max-cost={max_cost:g}, and {objection}; give --yes to create it"
      " anyway."
    )
  return summary


def _summary(plan: dict) -> str:
  chips = plan["chips"]
  best, worst = plan["chip_hours"], plan["chip_hours_without_overlap"]
  return "\n".join(
    [
      f"plan: {plan['slices']} x {plan['topology']}, {_memory(plan)}",
      f"predicted: {best / chips:.1f} to {worst / chips:.1f} hours on {chips}"
      f" chips, {best:.1f} to {worst:.1f} chip-hours",
      f"predicted cost: {_cost(plan)}",
    ]
  )


def _memory(plan: dict) -> str:
  there = plan["hbm_capacity_bytes"] / _GIB
  if plan["hbm_bytes_per_device"] is None:
    return (
      f"not compiled, so it is not known whether {there:.1f} GiB are enough"
    )
  return (
    f"{plan['hbm_bytes_per_device'] / _GIB:.1f} of {there:.1f} GiB per device"
  )


def _cost(plan: dict) -> str:
  """Returns the on-demand cost with full overlap and with none, as text."""
  best, worst = plan["cost"], plan["cost_without_overlap"]
  if best is None:
    return "not known; the plan has no price for this chip"
  currency = plan.get("currency") or ""
  return f"{best:,.2f} to {worst:,.2f} {currency} on demand"


def _objection(plan: dict, max_cost: float | None) -> str:
  """Returns why the user has to agree, or "" if no consent is needed."""
  if max_cost is None:
    return ""
  if plan["cost"] is None:
    return "the plan does not know the cost"
  if plan.get("currency") != "USD":
    return f"the plan counts in {plan.get('currency')}, not in US dollars"
  if plan["cost_without_overlap"] > max_cost:
    return f"the predicted cost is {_cost(plan)}"
  return ""


def _read(file: str) -> dict:
  needed = (
    "fits hbm_bytes_per_device hbm_capacity_bytes chips chip_hours"
    " chip_hours_without_overlap cost cost_without_overlap topology slices"
  ).split()
  try:
    plan = json.loads(pathlib.Path(file).read_text(encoding="utf-8"))
    missing = [name for name in needed if name not in plan]
  except OSError as error:
    raise LaunchError(
      f"--plan={file} cannot be read ({error.strerror}); make one with `jaxsae"
      " plan EXPERIMENT --topology=… --json=FILE`."
    ) from error
  except ValueError as error:
    raise LaunchError(f"--plan={file} is not JSON: {error}.") from error
  if missing:
    raise LaunchError(
      f"--plan={file} is not a plan: it lacks {', '.join(missing)}; make one by"
      " `jaxsae plan EXPERIMENT --topology=… --json=FILE`."
    )
  return plan


def _check_same(request: Request, plan: dict, file: str) -> None:
  planned = (plan["topology"], plan["slices"])
  if planned != (request.topology, request.slices):
    raise LaunchError(
      f"--plan={file} is for {planned[1]} x {planned[0]}, but the request is"
      f" for {request.slices} x {request.topology}; make them agree."
    )
  if plan["fits"] is False:
    raise LaunchError(
      f"--plan={file}: the run does not fit {request.topology}"
      f" ({_memory(plan)}); the plan says what to change."
    )
