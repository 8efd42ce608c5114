"""What a run is predicted to cost, as `jaxsae plan --json=FILE` says."""

import json
import pathlib

from launch.errors import LaunchError
from launch.request import Request
from launch.topologies import Topology

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
    told = "no plan, so no estimate of the cost"
    doubt = "without --plan=FILE it is not known what it costs"
  else:
    plan = _read(file)
    _check_same(request, plan, file)
    told, doubt = _told(plan), _doubt(plan, max_cost)
  if max_cost is not None and doubt and not agreed:
    raise LaunchError(
      f"--max-cost={max_cost:g}, and {doubt}; give --yes to create it"
      " nevertheless."
    )
  return told


def _told(plan: dict) -> str:
  chips = _chips(plan)
  used, there = plan["hbm_bytes_per_device"], plan["hbm_capacity_bytes"]
  return "\n".join(
    [
      f"plan: {plan['slices']} x {plan['topology']}, {used / _GIB:.1f} of"
      f" {there / _GIB:.1f} GiB a device",
      f"predicted: {plan['chip_hours'] / chips:.1f} hours on {chips} chips,"
      f" {plan['chip_hours']:.1f} chip-hours, {plan['tokens_per_second']:,.0f}"
      " tokens a second",
      f"predicted cost: {_cost(plan)}",
    ]
  )


def _cost(plan: dict) -> str:
  if plan["cost"] is None:
    return "not known; the plan has no price for this chip"
  return f"{plan['cost']:,.2f} {plan.get('currency') or ''}".strip()


def _doubt(plan: dict, max_cost: float | None) -> str:
  """Why somebody has to agree; "" if nobody needs to."""
  if max_cost is None:
    return ""
  if plan["cost"] is None:
    return "the plan does not know what it costs"
  if plan.get("currency") != "USD":
    return f"the plan counts in {plan.get('currency')}, not in US dollars"
  return f"{_cost(plan)} are predicted" if plan["cost"] > max_cost else ""


def _read(file: str) -> dict:
  needed = (
    "fits hbm_bytes_per_device hbm_capacity_bytes tokens_per_second chip_hours"
    " cost topology slices"
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
  if not plan["fits"]:
    raise LaunchError(
      f"--plan={file}: the run does not fit {request.topology}"
      f" ({plan['hbm_bytes_per_device'] / _GIB:.1f} of"
      f" {plan['hbm_capacity_bytes'] / _GIB:.1f} GiB a device); the plan says"
      " what to change."
    )


def _chips(plan: dict) -> int:
  return Topology.parse(plan["topology"]).chips * plan["slices"]
