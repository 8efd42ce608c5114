"""The verbs and their options."""

import argparse

from launch import ledger, names
from launch.errors import LaunchError
from launch.request import BACKENDS, CAPACITIES, LONGEST_FLEX_START, Request

_DOC = """\
Cloud TPUs: create slices, run an experiment on them, watch it, delete them.

  python -m launch create NAME --topology=v5e:2x4 --zone=us-west4-a
  python -m launch setup NAME
  python -m launch run experiments/FILE.py --workdir=gs://BUCKET/RUN
  python -m launch watch NAME --delete-when-done

launch/README.md has all of it. Every verb takes --dry-run, which prints the
commands and runs none.
"""


class _Parser(argparse.ArgumentParser):
  """Ends as everything here does: with a sentence and status 2."""

  def error(self, message):
    raise LaunchError(f"{message}; see `{self.prog} --help`.")


def parse(argv: list[str]) -> argparse.Namespace:
  """What was typed.

  Raises:
    LaunchError: it makes no sense.
  """
  parser = _Parser(
    prog="python -m launch",
    description=_DOC,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
  for name, (describe, about) in VERBS.items():
    verb = verbs.add_parser(
      name, help=about, description=about, allow_abbrev=False
    )
    describe(verb)
    _common_options(verb)
  return parser.parse_args(argv)


def request(options: argparse.Namespace) -> Request:
  """What `create` or `skypilot` asks for, checked."""
  where = names.location if options.backend == "gke" else names.zone
  asked = Request(
    name=names.name(options.name),
    topology=options.topology,
    zone=where(options.zone),
    backend=options.backend,
    project=options.project and names.project(options.project),
    capacity=options.capacity,
    slices=options.slices,
    max_run_duration=_duration(options.max_run_duration),
    valid_until_duration=_duration(options.valid_until_duration),
    cluster=options.cluster and names.name(options.cluster),
    image=options.image and names.image(options.image),
  )
  asked.slice  # noqa: B018  raises if there is none
  asked.check()
  return asked


def experiment(options: argparse.Namespace) -> tuple[list[str], str]:
  """The experiment's file and flags, and its folder.

  Raises:
    LaunchError: the folder would be lost with the machine.
  """
  argv = [options.experiment, *options.flags]
  given = [x for x in options.flags if x.startswith("--workdir=")]
  workdir = given[-1].partition("=")[2] if given else ""
  if not workdir.startswith(("gs://", "/")):
    raise LaunchError(
      f"--workdir={workdir or 'DIR'} would lie on one machine and go with it;"
      " give --workdir=gs://BUCKET/RUN, or the path from / of a disk that all"
      " workers share."
    )
  return argv, workdir


def _duration(text: str | None) -> str | None:
  return text and names.duration(text)


def _common_options(verb) -> None:
  verb.add_argument(
    "--dry-run", action="store_true", help="print the commands, run none"
  )
  verb.add_argument(
    "--state",
    metavar="DIR",
    default=ledger.DEFAULT,
    help="where what was created is written down (%(default)s)",
  )


def _create(verb) -> None:
  _slice_options(verb)
  verb.add_argument("--plan", metavar="FILE", help="from jaxsae plan --json")
  verb.add_argument(
    "--max-cost",
    metavar="USD",
    type=float,
    help="do not create what costs more",
  )
  verb.add_argument("--yes", action="store_true", help="create it all the same")
  _poll(verb)


def _slice_options(verb) -> None:
  verb.add_argument("name", metavar="NAME")
  verb.add_argument(
    "--topology", required=True, help="chip and shape of a slice, as v5e:2x4"
  )
  verb.add_argument(
    "--zone",
    required=True,
    help="as us-central1-a; of a cluster, its region too",
  )
  verb.add_argument("--project", help="else gcloud's own")
  verb.add_argument("--backend", choices=BACKENDS, default=BACKENDS[0])
  verb.add_argument("--capacity", choices=CAPACITIES, default=CAPACITIES[0])
  verb.add_argument(
    "--slices", type=int, default=1, help="that run one program"
  )
  verb.add_argument(
    "--max-run-duration",
    metavar="TIME",
    help=f"of flex-start: deleted by Google after it ({LONGEST_FLEX_START})",
  )
  verb.add_argument(
    "--valid-until-duration", metavar="TIME", help="longest wait in the queue"
  )
  verb.add_argument("--cluster", help="of --backend=gke")
  verb.add_argument("--image", help="of --backend=gke: holds the code")


def _setup(verb) -> None:
  _name(verb)
  verb.add_argument(
    "--rev", metavar="REVISION", help="of git; else the files as they are now"
  )


def _run(verb) -> None:
  verb.add_argument("--on", metavar="NAME", help="if there are several")
  _experiment(verb)


def _sweep(verb) -> None:
  verb.add_argument(
    "--on", metavar="NAME,NAME,…", required=True, help="a slice each"
  )
  _watch_options(verb)
  _experiment(verb)


def _skypilot(verb) -> None:
  _slice_options(verb)
  _experiment(verb)


def _experiment(verb) -> None:
  verb.add_argument(
    "--env",
    metavar="KEY=VALUE",
    action="append",
    default=[],
    help="a variable of the run; no secrets",
  )
  verb.add_argument(
    "experiment", metavar="EXPERIMENT", help="experiments/FILE.py"
  )
  verb.add_argument(
    "flags",
    metavar="--FLAGS",
    nargs=argparse.REMAINDER,
    help="of the experiment",
  )


def _watch(verb) -> None:
  _name(verb)
  _watch_options(verb)


def _logs(verb) -> None:
  _name(verb)
  verb.add_argument("--slice", type=int, default=0, help="from 0")
  verb.add_argument(
    "--worker", type=int, default=0, help="of the slice, from 0"
  )


def _watch_options(verb) -> None:
  verb.add_argument(
    "--delete-when-done",
    action="store_true",
    help="delete the slices when the watch ends, also by Ctrl-C",
  )
  _poll(verb)
  verb.add_argument(
    "--backoff",
    metavar="SECONDS",
    type=float,
    default=15.0,
    help="before the first start again; doubles (%(default)g)",
  )
  verb.add_argument(
    "--retries",
    metavar="N",
    type=int,
    default=3,
    help="starts without progress, but for preemptions (%(default)s)",
  )


def _poll(verb) -> None:
  verb.add_argument(
    "--poll",
    metavar="SECONDS",
    type=float,
    default=30.0,
    help="between two looks (%(default)g)",
  )


def _name(verb) -> None:
  verb.add_argument(
    "name", metavar="NAME", nargs="?", help="if there are several"
  )


def _required_name(verb) -> None:
  verb.add_argument("name", metavar="NAME")


def _project(verb) -> None:
  verb.add_argument("--project", help="else gcloud's own")


VERBS = {
  "create": (_create, "make slices, and wait until they are ready"),
  "setup": (_setup, "copy the code to all workers and install its lock"),
  "run": (_run, "start an experiment on all workers, and leave it running"),
  "watch": (_watch, "follow a run to its end; start it again if preempted"),
  "status": (_name, "what the slices and each worker are at"),
  "logs": (_logs, "what a worker printed"),
  "stop": (_name, "ask the run for a checkpoint and an end"),
  "delete": (_required_name, "delete the slices"),
  "list": (_project, "all that runs with the label jaxsae, and costs money"),
  "sweep": (_sweep, "share the runs of an experiment among slices, and watch"),
  "skypilot": (_skypilot, "print a task for `sky jobs launch`"),
}
