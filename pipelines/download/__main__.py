"""`python -m pipelines.download SPEC`."""

from pipelines.download.spec import STAGE
from pipelines.stage import main

if __name__ == "__main__":  # The pool's processes import this module too.
    main(STAGE)
