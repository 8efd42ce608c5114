"""`python -m jaxsae.plan`: the process that `jaxsae plan` starts."""

import sys

from jaxsae.errors import exit_on_user_error
from jaxsae.plan.command import main

if __name__ == "__main__":
  with exit_on_user_error():
    main(sys.argv[1:])
