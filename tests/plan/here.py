"""Devices of this machine, as stand-ins for those of a slice."""

import jax


def devices(count: int) -> list[jax.Device]:
  return jax.devices()[:count]
