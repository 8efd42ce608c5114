"""How tests compile programs for CPUs."""


def flags(devices: int) -> str:
  """Returns XLA_FLAGS for so many devices.

  Programs of tests run for milliseconds and take seconds to compile; without
  LLVM's optimisations that is a third less. The TPU's compiler ignores them.
  """
  return (
    f"--xla_force_host_platform_device_count={devices}"
    " --xla_backend_optimization_level=0"
    " --xla_llvm_disable_expensive_passes=true"
    " --xla_cpu_parallel_codegen_split_count=1"
  )
