"""States of slices, in terms that all services share."""

import enum


class State(enum.Enum):
  """State of all slices of one name together."""

  WAITING = "waiting for capacity"
  CREATING = "being created"
  READY = "ready"
  LOST = "preempted or broken, to be deleted"
  DELETING = "being deleted"
  ABSENT = "absent"
