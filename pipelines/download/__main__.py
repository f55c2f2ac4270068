"""`python -m pipelines.download SPEC`."""

from pipelines.command_line import main
from pipelines.download.spec import STAGE

if __name__ == "__main__":  # The pool's processes import this module too.
    main(STAGE)
