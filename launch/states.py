"""What slices are at, in words that all services share."""

import enum


class State(enum.Enum):
  """Of all slices of a name together."""

  WAITING = "waiting for capacity"
  CREATING = "being created"
  READY = "ready"
  LOST = "preempted or broken, to be deleted"
  DELETING = "being deleted"
  ABSENT = "absent"
