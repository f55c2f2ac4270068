"""`python -m pipelines.foundations.vision SPEC`."""

from pipelines.foundations.vision.spec import STAGE
from pipelines.stage import main

main(STAGE)
