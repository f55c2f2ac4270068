"""`python -m pipelines.instructions SPEC`."""

from pipelines.instructions.spec import STAGE
from pipelines.stage import main

if __name__ == "__main__":
    main(STAGE)
