"""`python -m pipelines.foundations.translator SPEC`."""

from pipelines.foundations.translator.spec import STAGE
from pipelines.stage import main

if __name__ == "__main__":
    main(STAGE)
