"""`python -m pipelines.score SPEC`."""

from pipelines.score.spec import STAGE
from pipelines.stage import main

if __name__ == "__main__":
    main(STAGE)
