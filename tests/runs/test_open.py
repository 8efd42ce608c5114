"""A run is opened on the mesh that it was trained on."""

import pytest

from jaxsae.errors import UserError
from jaxsae.lm import splice
from jaxsae.runs.open import open_run
from jaxsae.train import loop

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("fsdp", [False, True])
def test_a_run_is_opened_with_the_model_axis_of_training(config, replace, fsdp):
  loop.train(replace(config, mesh__model=2, fsdp=fsdp, tokens=512))
  run = open_run(config.workdir)
  assert dict(run.lm.mesh.shape) == {"data": 4, "model": 2}
  table = run.lm.params["embedder"]["input_embedding"]
  parts = 8 if fsdp else 2
  assert table.addressable_shards[0].data.size == table.size / parts
  for _, sae in run.saes.values():
    assert sae.w_dec.addressable_shards[0].data.size < sae.w_dec.size
  line = repr(run)
  assert line.startswith(f"Run('{config.workdir}', step {run.step}, ")
  assert "\n" not in line
  name, (taps, sae) = next(iter(run.saes.items()))
  with pytest.raises(UserError, match=rf"{name} of .*{taps}"):
    splice("mlp_in.0", sae)
  assert splice(taps, sae)
