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

See launch/README.md for details. Every verb takes --dry-run, which prints the
commands without running them.
"""


class _Parser(argparse.ArgumentParser):
  """An argument parser that reports errors as LaunchError, with status 2."""

  def error(self, message):
    raise LaunchError(f"{message}; see `{self.prog} --help`.")


def parse(argv: list[str]) -> argparse.Namespace:
  """Parses the command line.

  Raises:
    LaunchError: a verb or an option is unknown, missing or malformed.
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
  """Builds and checks the request that `create` or `skypilot` makes."""
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
    disks=tuple(map(names.disk, options.disk)),
  )
  asked.slice  # noqa: B018  raises if no such slice exists
  asked.check()
  return asked


def experiment(options: argparse.Namespace) -> tuple[list[str], str]:
  """Returns the experiment's command line and its working directory.

  Raises:
    LaunchError: the directory would be lost with the machine.
  """
  argv = [options.experiment, *options.flags]
  given = [x for x in options.flags if x.startswith("--workdir=")]
  workdir = given[-1].partition("=")[2] if given else ""
  if not workdir.startswith(("gs://", "/")):
    raise LaunchError(
      f"--workdir={workdir or 'DIR'} would be lost with its machine;"
      " give --workdir=gs://BUCKET/RUN, or the absolute path of a disk that all"
      " workers share."
    )
  return argv, workdir


def _duration(text: str | None) -> str | None:
  return text and names.duration(text)


def _common_options(verb) -> None:
  verb.add_argument(
    "--dry-run",
    action="store_true",
    help="print the commands without running them",
  )
  verb.add_argument(
    "--state",
    metavar="DIR",
    type=names.path,
    default=ledger.DEFAULT,
    help="folder of the ledger, which records what was created (%(default)s)",
  )


def _create(verb) -> None:
  _slice_options(verb)
  verb.add_argument(
    "--plan",
    metavar="FILE",
    type=names.path,
    help="file written by jaxsae plan --json",
  )
  verb.add_argument(
    "--max-cost",
    metavar="USD",
    type=float,
    help="refuse to create slices whose run may cost more",
  )
  verb.add_argument(
    "--yes", action="store_true", help="create the slices despite --max-cost"
  )
  _poll(verb)


def _slice_options(verb) -> None:
  verb.add_argument("name", metavar="NAME")
  verb.add_argument(
    "--topology",
    required=True,
    help="chip and shape of each slice, such as v5e:2x4",
  )
  verb.add_argument(
    "--zone",
    required=True,
    help="such as us-central1-a; for a cluster, a region is allowed too",
  )
  verb.add_argument(
    "--project", help="Google Cloud project (default: the one gcloud is set to)"
  )
  verb.add_argument("--backend", choices=BACKENDS, default=BACKENDS[0])
  verb.add_argument("--capacity", choices=CAPACITIES, default=CAPACITIES[0])
  verb.add_argument(
    "--slices",
    type=int,
    default=1,
    help="number of slices that run one program (%(default)s)",
  )
  verb.add_argument(
    "--max-run-duration",
    metavar="TIME",
    help="flex-start only: time after which Google deletes the slices"
    f" ({LONGEST_FLEX_START})",
  )
  verb.add_argument(
    "--valid-until-duration",
    metavar="TIME",
    help="longest time to wait in the queue",
  )
  verb.add_argument("--cluster", help="--backend=gke only: name of the cluster")
  verb.add_argument("--image", help="--backend=gke only: image with the code")
  verb.add_argument(
    "--disk",
    metavar="NAME[:MOUNT]",
    action="append",
    default=[],
    help="data disk of the same zone, with text or weights, to mount read-only"
    " on every host (at /mnt/NAME); for gke, a PersistentVolumeClaim",
  )


def _setup(verb) -> None:
  _name(verb)
  verb.add_argument(
    "--rev",
    metavar="REVISION",
    help="git revision to copy (default: the files as they are now)",
  )
  verb.add_argument(
    "--script",
    metavar="FILE",
    type=names.path,
    help="program of yours to run once on every new machine, such as one that"
    " copies weights from a bucket; kept for later set-ups",
  )


def _run(verb) -> None:
  verb.add_argument("--on", metavar="NAME", help="needed only if several exist")
  _experiment(verb)


def _sweep(verb) -> None:
  verb.add_argument(
    "--on",
    metavar="NAME,NAME,…",
    required=True,
    help="names of the slices, each created on its own",
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
    help="environment variable for the run; not for secrets",
  )
  verb.add_argument(
    "experiment", metavar="EXPERIMENT", help="experiments/FILE.py"
  )
  verb.add_argument(
    "flags",
    metavar="--FLAGS",
    nargs=argparse.REMAINDER,
    help="flags of the experiment",
  )


def _watch(verb) -> None:
  _name(verb)
  _watch_options(verb)


def _logs(verb) -> None:
  _name(verb)
  verb.add_argument(
    "--slice", type=int, default=0, help="index of the slice, from 0"
  )
  verb.add_argument(
    "--worker",
    type=int,
    default=0,
    help="index of the worker in its slice, from 0",
  )


def _watch_options(verb) -> None:
  verb.add_argument(
    "--delete-when-done",
    action="store_true",
    help="delete the slices when the watch ends, even by Ctrl-C",
  )
  _poll(verb)
  verb.add_argument(
    "--backoff",
    metavar="SECONDS",
    type=float,
    default=15.0,
    help="wait before the first restart; doubles each time (%(default)g)",
  )
  verb.add_argument(
    "--retries",
    metavar="N",
    type=int,
    default=3,
    help="restarts without progress, not counting preemptions (%(default)s)",
  )


def _poll(verb) -> None:
  verb.add_argument(
    "--poll",
    metavar="SECONDS",
    type=float,
    default=30.0,
    help="time between two checks (%(default)g)",
  )


def _name(verb) -> None:
  verb.add_argument(
    "name", metavar="NAME", nargs="?", help="needed only if several exist"
  )


def _required_name(verb) -> None:
  verb.add_argument("name", metavar="NAME")


def _project(verb) -> None:
  verb.add_argument(
    "--project", help="Google Cloud project (default: the one gcloud is set to)"
  )


VERBS = {
  "create": (_create, "create slices and wait until they are ready"),
  "setup": (
    _setup,
    "copy the code to all workers and install its requirements",
  ),
  "run": (_run, "start an experiment on all workers and leave it running"),
  "watch": (_watch, "follow a run to its end; restart it if it is preempted"),
  "status": (_name, "show the state of the slices and of each worker"),
  "logs": (_logs, "print the output of one worker"),
  "stop": (_name, "ask the run to save a checkpoint and exit"),
  "delete": (_required_name, "delete the slices"),
  "list": (
    _project,
    "list everything that runs with the label jaxsae and costs money",
  ),
  "sweep": (
    _sweep,
    "divide the runs of an experiment among slices and watch them",
  ),
  "skypilot": (_skypilot, "print a task for `sky jobs launch`"),
}
