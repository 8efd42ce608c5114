"""A user's mistake gives one sentence with a remedy, and status 2."""

import pytest

from launch import failures
from tests.launch.conftest import script
from tests.launch.test_run import EXPERIMENT

WHERE = ("--topology=v5p:2x2x1", "--zone=us-east5-a", "--poll=0.01")


def refused(said, *words):
  """Asserts that a call failed with one sentence that has these words."""
  status, _, err = said
  assert status == 2, err
  assert err.startswith("error: ") and err.count("\n") == 1, err
  assert err.rstrip().endswith("."), err
  assert "Traceback" not in err
  for word in words:
    assert word in err, err
  return True


def test_a_missing_gcloud_is_an_error(launch, tmp_path, monkeypatch):
  monkeypatch.setenv("PATH", str(tmp_path))
  said = launch("create", "a", *WHERE)
  assert refused(said, "gcloud is not on PATH", "docs/install")
  assert launch("status")[0] == 2  # nothing was written down


SAID = {
  "You do not currently have an active account selected.\nPlease run:\n\n  $"
  " gcloud auth login": ("not logged in", "gcloud auth login"),
  "The required property [project] is not currently set.": (
    "--project=ID",
    "gcloud config set",
  ),
  "ERROR: (gcloud.compute.tpus.tpu-vm.create) Error parsing [tpu].\nThe [tpu]"
  " resource is not properly specified.\nFailed to find attribute [project]."
  " The attribute can be set in the following ways: \n- provide the argument"
  " `--project` on the command line\n- set the property `core/project`": (
    "no project is set",
    "--project=ID",
    "Failed to find attribute [project]",
  ),
  "ERROR: (gcloud.compute.tpus.tpu-vm.create) unrecognized arguments:\n"
  "  --data-disk=x (did you mean '--disk'?)": (
    "gcloud components update",
    "--data-disk=x",
  ),
  "Quota limit 'TPUV5sPerProjectPerZoneForTPUAPI' has been exceeded. Limit: 0"
  " in zone us-east5-a.": ("quota", "TPUV5sPerProject", "another --zone"),
  'There is no more capacity in the zone "us-east5-a"; you can try in another'
  " zone": ("no capacity", "--capacity=queued"),
  "ALREADY_EXISTS: Resource 'projects/p/locations/z/nodes/a' already exists": (
    "the name is taken",
    "another NAME",
  ),
  "NOT_FOUND: Location us-mars1-a is not found or access is unauthorized.": (
    "the zone",
    "locations list",
  ),
  "The resource 'projects/p/zones/us-east5-a/disks/text' was not found": (
    "data disk does not exist",
    "disks list",
  ),
  "PERMISSION_DENIED: Permission 'tpu.nodes.create' denied on 'projects/p'": (
    "may not do this",
    "TPU Admin",
  ),
}


@pytest.mark.parametrize("said", SAID)
def test_messages_of_gcloud_become_one_sentence(cloud, launch, said):
  cloud.fail_next("create", [1, said])
  assert refused(launch("create", "a", *WHERE), *SAID[said])
  # Nothing was made, so nothing is left to delete.
  assert launch("status")[0] == 2


def test_after_an_unknown_error_the_ledger_keeps_the_slices(cloud, launch):
  cloud.fail_next("create", [1, "INTERNAL: something broke"])
  assert refused(launch("create", "a", *WHERE), "something broke")
  assert "a: absent" in launch("status")[1]


def test_what_cannot_be_deleted_says_how_to_forget_it(cloud, launch, tmp_path):
  cloud.fail_next("create", [1, "INTERNAL: something broke"])
  launch("create", "a", *WHERE)
  cloud.fail_next("delete", [1, "INTERNAL: still broken"])
  file = tmp_path / "state" / "a.json"
  assert refused(launch("delete", "a"), "still broken", str(file))
  file.unlink()  # as it says
  assert launch("create", "a", *WHERE)[0] == 0


def test_a_name_cannot_be_used_twice(made, launch):
  made()
  assert refused(launch("create", "a", *WHERE), "already", "launch delete a")


def test_a_taken_name_is_never_deleted(cloud, launch):
  """Slices that somebody else created are not in the ledger, and stay."""
  launch("create", "a", *WHERE)
  assert refused(launch("create", "a", *WHERE, "--yes"), "already")
  cloud.fail_next("create", [1, "already exists"])
  assert refused(launch("create", "b", *WHERE), "taken")
  assert refused(launch("delete", "b"), "b was not created from here")


@pytest.mark.parametrize(
  "words, told",
  [
    (["--topology=v9:2x2"], ["v9", "v4, v5e, v5p, v6e, tpu7x"]),
    (["--topology=v5e:3x3"], ["3x3", "v5e:2x4", "v5e:16x16"]),
    (["--topology=v5e"], ["v5e:2x4"]),
    (["--topology=tpu7x:4x4x4"], ["ends at v6e", "--backend=mig"]),
    (["--topology=v5e:2x4", "--backend=mig", "--project=my-project"], ["v5p"]),
    (["--backend=mig"], ["--project"]),
    (["--backend=mig", "--project=my-project", "--slices=2"], ["one slice"]),
    (
      ["--backend=mig", "--project=my-project", "--capacity=flex-start"],
      ["flex-start", "on-demand"],
    ),
    (["--backend=gke"], ["--cluster and --image"]),
    (["--disk=text"], ["--disk needs --project"]),
    (["--disk=Text"], ["'Text'", "disks list"]),
    (["--disk=$(touch x)"], ["'$(touch x)'", "disks list"]),
    (["--disk=a b"], ["'a b'", "disks list"]),
    (["--disk="], ["''", "disks list"]),
    (["--disk=text:/mnt/a b"], ["'/mnt/a b'", "--disk=text:/mnt/FOLDER"]),
    (["--disk=text:/mnt/$(x)"], ["'/mnt/$(x)'", "--disk=text:/mnt/FOLDER"]),
    (["--disk=text:/mnt/it's"], ["it's", "--disk=text:/mnt/FOLDER"]),
    (["--disk=text:/mnt/../etc"], ["/mnt/../etc", "--disk=text:/mnt/FOLDER"]),
    (["--disk=text:mnt/a"], ["'mnt/a'", "--disk=text:/mnt/FOLDER"]),
    (["--disk=text:/usr/lib"], ["'/usr/lib'", "--disk=text:/mnt/FOLDER"]),
    (["--disk=text:/data"], ["'/data'", "--disk=text:/mnt/FOLDER"]),
    (["--disk=a", "--disk=a:/mnt/b"], ["give each disk once"]),
    (["--disk=a:/mnt/c", "--disk=b:/mnt/c"], ["another folder"]),
    (["--backend=slurm"], ["slurm", "tpu-vm"]),
    (["--capacity=free"], ["free", "spot"]),
    (["--slices=0"], ["at least one"]),
    (["--zone=mars"], ["'mars'", "us-central1-a"]),
    (["--project=No!"], ["'No!'", "projects list"]),
    (["--max-run-duration=2d"], ["flex-start"]),
    (["--capacity=flex-start", "--max-run-duration=long"], ["'long'", "6h"]),
    (["--valid-until-duration=2d"], ["queue"]),
    (["--max-cost=much"], ["much"]),
    (["--colour=red"], ["--colour=red"]),
  ],
)
def test_requests_that_cannot_be_fulfilled_are_refused(
  cloud, launch, words, told
):
  assert refused(launch("create", "a", *WHERE, *words), *told)
  assert cloud.calls == []


@pytest.mark.parametrize(
  "name", ["A", "1a", "a_b", "a;b", "$(x)", "-a", "a" * 41, "a\n", "", "../a"]
)
def test_invalid_names_are_refused(cloud, launch, name):
  status, _, err = launch("create", *WHERE, "--", name)
  assert status == 2 and cloud.calls == []
  assert repr(name) in err


@pytest.mark.parametrize(
  "words, told",
  [
    (["experiments/none.py"], ["none.py", "experiments/count.py"]),
    (["experiments/new.py"], ["not tracked by git", "git add"]),
    (["../count.py"], ["path from"]),
    ([], ["EXPERIMENT"]),
  ],
)
def test_experiments_that_cannot_run_are_refused(
  made, launch, checkout, words, told
):
  made()
  (checkout / "experiments" / "new.py").touch()
  workdir = ["--workdir=gs://b/r"] if words else []
  assert refused(launch("run", *words, *workdir), *told)


@pytest.mark.parametrize("flags", [[], ["--workdir=runs/a"], ["--workdir="]])
def test_a_workdir_on_the_machine_itself_is_refused(made, launch, flags):
  made()
  assert refused(launch("run", EXPERIMENT, *flags), "gs://BUCKET", "--workdir")


def test_verbs_in_the_wrong_order_are_refused(cloud, checkout, launch):
  run = ("run", EXPERIMENT, "--workdir=gs://b/r")
  assert refused(launch(*run), "launch create")
  launch("create", "a", *WHERE)
  assert refused(launch("watch"), "nothing was run on a", "launch run")
  assert refused(launch("stop"), "nothing was run on a")
  assert refused(launch("logs"), "nothing was run on a")
  launch("create", "b", *WHERE)
  assert refused(launch("status"), "there are a, b", "give a NAME")


def test_logs_of_a_missing_slice_are_refused(made, launch, tmp_path):
  made()
  launch("run", EXPERIMENT, f"--workdir={tmp_path}/run")
  assert refused(launch("logs", "--slice=1"), "--slice=1", "counted from 0")


def test_a_checkout_without_git_is_refused(
  cloud, launch, tmp_path, monkeypatch
):
  from launch import source_archive

  monkeypatch.setattr(source_archive, "ROOT", tmp_path)
  launch("create", "a", *WHERE)
  assert refused(launch("setup"), "git checkout")


def test_set_up_that_fails_shows_why(cloud, checkout, launch):
  launch("create", "a", *WHERE)
  script(cloud.folder / "bin" / "uv", "#!/bin/sh\necho no wheel >&2; exit 1\n")
  assert refused(launch("setup"), "no wheel")


def test_output_of_workers_is_not_taken_for_that_of_gcloud():
  failure = failures.from_worker("a", "pip: disk quota exceeded", 1)
  assert failure.kind == failures.OTHER
  said = "ERROR: (gcloud.compute.tpus.tpu-vm.ssh) NOT_FOUND: nodes/a"
  assert failures.from_worker("a", said, 1).kind == failures.ABSENT
  assert failures.from_worker("a", "closed", 255).kind == failures.UNREACHABLE
