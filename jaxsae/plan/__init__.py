"""Plans a run for a TPU slice, before there is one.

`jaxsae plan` compiles the run's own step with the TPU's compiler, on a machine
without a TPU, and predicts whether it fits, its hours and its dollars.
Everything in a plan is a prediction.
"""
