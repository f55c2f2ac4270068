"""`python -m pipelines.foundations.clip SPEC`."""

from pipelines.foundations.clip.spec import STAGE
from pipelines.stage import main

if __name__ == "__main__":
    main(STAGE)
