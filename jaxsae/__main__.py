"""`python -m jaxsae ACTION …`, the same as `jaxsae ACTION …`."""

from jaxsae.cli import main

if __name__ == "__main__":
  main()
