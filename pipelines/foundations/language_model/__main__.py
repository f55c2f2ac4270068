"""`python -m pipelines.foundations.language_model SPEC`."""

from pipelines.foundations.language_model.spec import STAGE
from pipelines.stage import main

main(STAGE)
