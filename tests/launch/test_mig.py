"""An instance group is made of parts: all of them or none."""

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


def test_it_is_made_and_deleted_whole(cloud, launch):
  assert launch("create", "a", *WHERE)[0] == 0
  assert parts(cloud) == PARTS
  assert "a: ready" in launch("status")[1]
  assert launch("delete", "a")[0] == 0
  assert parts(cloud) == set()


@pytest.mark.parametrize("refused", [0, 1, 2])
def test_a_part_that_is_refused_leaves_none_behind(cloud, launch, refused):
  fault = [1, "Quota 'TPUS_PER_TPU_FAMILY' exceeded."]
  cloud.fail_next("part", *[[0, ""]] * refused, fault)
  status, _, err = launch("create", "a", *WHERE)
  assert status == 2 and "quota" in err
  assert parts(cloud) == set()
  assert launch("status")[0] == 2


def test_the_parts_of_others_stay(cloud, launch):
  with cloud.open() as data:
    data["parts"]["a-template"] = {}
  status, _, err = launch("create", "a", *WHERE)
  assert status == 2 and "taken" in err
  assert parts(cloud) == {"a-template"}


@pytest.mark.parametrize(
  "said, told", [("STAGING", "being created"), ("TERMINATED", "preempted")]
)
def test_the_worst_host_counts(cloud, launch, said, told):
  launch("create", "a", *WHERE)
  with cloud.open() as data:
    data["parts"]["a"]["state"] = said
  assert told in launch("status")[1]
