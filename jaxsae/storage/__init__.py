"""Object stores: how `gs://` is reached, and what is done when it fails.

Every access to `gs://` in this process, ours and Orbax's alike, goes through
`google.GoogleStorage`. What may pass by itself (503, 429, a connection that
breaks, an answer that stops half-way) is tried again, after longer and longer
pauses, for `PATIENCE` seconds; then `StorageError` ends the process with the
status that means "start me again". What will not pass (no permission, no such
bucket, not logged in) is told at once.

TensorStore, which carries the arrays of checkpoints, has its own way to
`gs://`, and is told to try as often as takes about as long.

A store that somebody else changes is seen as it is: nothing is listed from
memory.
"""

import os

import fsspec

from jaxsae.storage.files import move as move
from jaxsae.storage.files import names as names
from jaxsae.storage.files import remove as remove
from jaxsae.storage.files import upload as upload
from jaxsae.storage.retries import failure_of as failure_of
from jaxsae.storage.retries import patience as patience
from jaxsae.storage.retries import tensorstore_retries as tensorstore_retries

for _name, _value in {
  # TensorFlow, where it is installed, would be used for gs:// instead.
  "EPATH_USE_TF": "false",
  # A request of TensorStore's that stalls fails, and is tried again.
  "TENSORSTORE_CURL_LOW_SPEED_TIME_SECONDS": "60",
  "TENSORSTORE_CURL_LOW_SPEED_LIMIT_BYTES": "1024",
}.items():
  os.environ.setdefault(_name, _value)

for _name in ("gs", "gcs"):
  # By name, because gcsfs is slow to import and need not be installed.
  fsspec.register_implementation(
    _name, "jaxsae.storage.google.GoogleStorage", clobber=True
  )
