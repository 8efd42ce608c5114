"""An instance group has all of its parts or none."""

import pytest

WHERE = (
  "--topology=tpu7x:2x2x2",
  "--zone=us-central1-c",
  "--backend=mig",
  "--project=my-project",
  "--poll=0.01",
)
PARTS = {"a", "a-policy", "a-template"}


def parts(cloud):
  with cloud.open() as data:
    return set(data["parts"])


def test_a_group_is_created_and_deleted_whole(cloud, launch):
  assert launch("create", "a", *WHERE)[0] == 0
  assert parts(cloud) == PARTS
  assert "a: ready" in launch("status")[1]
  assert launch("delete", "a")[0] == 0
  assert parts(cloud) == set()


@pytest.mark.parametrize("refused", [0, 1, 2])
def test_a_refused_part_leaves_no_part_behind(cloud, launch, refused):
  fault = [1, "Quota 'TPUS_PER_TPU_FAMILY' exceeded."]
  cloud.fail_next("part", *[[0, ""]] * refused, fault)
  status, _, err = launch("create", "a", *WHERE)
  assert status == 2 and "quota" in err
  assert parts(cloud) == set()
  assert launch("status")[0] == 2


def test_parts_of_other_groups_stay(cloud, launch):
  with cloud.open() as data:
    data["parts"]["a-template"] = {}
  status, _, err = launch("create", "a", *WHERE)
  assert status == 2 and "taken" in err
  assert parts(cloud) == {"a-template"}


def test_hosts_that_can_never_be_created_are_not_waited_for(cloud, launch):
  launch("create", "a", *WHERE)
  with cloud.open() as data:
    data["parts"]["a"]["error"] = (
      "The resource 'projects/p/zones/us-central1-c/disks/text' was not found"
    )
  status, _, err = launch("status")
  assert status == 2 and "disks list" in err and "disks/text" in err
  with cloud.open() as data:
    data["parts"]["a"]["error"] = "ZONE_RESOURCE_POOL_EXHAUSTED"
  assert "a: being created" in launch("status")[1]
  assert launch("delete", "a")[0] == 0


@pytest.mark.parametrize(
  "said, told", [("STAGING", "being created"), ("TERMINATED", "preempted")]
)
def test_the_result_is_that_of_the_worst_host(cloud, launch, said, told):
  launch("create", "a", *WHERE)
  with cloud.open() as data:
    data["parts"]["a"]["state"] = said
  assert told in launch("status")[1]
