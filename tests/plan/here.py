"""Devices of this machine, which stand in for those of a slice."""

import jax


def devices(count: int) -> list[jax.Device]:
  return jax.devices()[:count]
