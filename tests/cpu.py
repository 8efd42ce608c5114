"""The settings of XLA with which tests run on CPU devices."""


def flags(devices: int) -> str:
  """Returns the XLA_FLAGS of a process with this number of CPU devices.

  Programs of tests run for milliseconds and take seconds to compile; without
  LLVM's optimisations that is a third less. The TPU's compiler ignores them.
  """
  return (
    f"--xla_force_host_platform_device_count={devices}"
    " --xla_backend_optimization_level=0"
    " --xla_llvm_disable_expensive_passes=true"
    " --xla_cpu_parallel_codegen_split_count=1"
  )


# The number of CPUs that XLA believes in, as the variable NPROC. Devices share
# its threads, one for each CPU: where they are fewer than devices that wait for
# one another, all may wait for ever, and XLA ends the process after 40 s.
NPROC = "16"
