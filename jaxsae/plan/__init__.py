"""Plans a run for a TPU slice, before there is one.

`jaxsae plan` compiles the run's own step with the TPU's compiler, on a machine
without a TPU, and says whether it fits, how long it takes and how many dollars.
Everything in a plan is a prediction.
"""
