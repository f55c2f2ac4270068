"""`python -m pipelines.filter SPEC`."""

from pipelines.filter.spec import STAGE
from pipelines.stage import main

if __name__ == "__main__":
    main(STAGE)
