"""What a run is predicted to cost, as `jaxsae plan --json=FILE` says."""

import json
import pathlib

from launch.errors import LaunchError
from launch.request import Request

_GIB = 2**30


def check(
  request: Request, file: str | None, max_cost: float | None, agreed: bool
) -> str:
  """The estimate, as lines for a person.

  Args:
    file: a plan's; None: there is none.
    max_cost: in US dollars, above which somebody has to agree.
    agreed: somebody does.

  Raises:
    LaunchError: the plan is of other slices, or does not fit them; or it costs
      more, or it is not known what it costs, and nobody agrees.
  """
  if file is None:
    summary = "no plan, so no estimate of the cost"
    objection = "without --plan=FILE it is not known what it costs"
  else:
    plan = _read(file)
    _check_same(request, plan, file)
    summary, objection = _summary(plan), _objection(plan, max_cost)
  if max_cost is not None and objection and not agreed:
    raise LaunchError(
      f"--max-cost={max_cost:g}, and {objection}; give --yes to create it"
      " nevertheless."
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
    return f"not compiled, so it is not known whether {there:.1f} GiB suffice"
  return (
    f"{plan['hbm_bytes_per_device'] / _GIB:.1f} of {there:.1f} GiB a device"
  )


def _cost(plan: dict) -> str:
  """On demand: if everything overlaps, and if nothing does."""
  best, worst = plan["cost"], plan["cost_without_overlap"]
  if best is None:
    return "not known; the plan has no price for this chip"
  currency = plan.get("currency") or ""
  return f"{best:,.2f} to {worst:,.2f} {currency} on demand"


def _objection(plan: dict, max_cost: float | None) -> str:
  """Why somebody has to agree; "" if nobody needs to."""
  if max_cost is None:
    return ""
  if plan["cost"] is None:
    return "the plan does not know what it costs"
  if plan.get("currency") != "USD":
    return f"the plan counts in {plan.get('currency')}, not in US dollars"
  if plan["cost_without_overlap"] > max_cost:
    return f"{_cost(plan)} are predicted"
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
      f"--plan={file} can not be read ({error.strerror}); make one with `jaxsae"
      " plan EXPERIMENT --topology=… --json=FILE`."
    ) from error
  except ValueError as error:
    raise LaunchError(f"--plan={file} is not JSON: {error}.") from error
  if missing:
    raise LaunchError(
      f"--plan={file} is no plan: it has no {', '.join(missing)}; make one with"
      " `jaxsae plan EXPERIMENT --topology=… --json=FILE`."
    )
  return plan


def _check_same(request: Request, plan: dict, file: str) -> None:
  planned = (plan["topology"], plan["slices"])
  if planned != (request.topology, request.slices):
    raise LaunchError(
      f"--plan={file} is of {planned[1]} x {planned[0]}, and"
      f" {request.slices} x {request.topology} is to be created; plan that, or"
      " create the other."
    )
  if plan["fits"] is False:
    raise LaunchError(
      f"--plan={file}: the run does not fit {request.topology}"
      f" ({_memory(plan)}); the plan says what to change."
    )
