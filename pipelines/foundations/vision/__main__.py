"""`python -m pipelines.foundations.vision SPEC`."""

from pipelines.command_line import main
from pipelines.foundations.vision.spec import STAGE

main(STAGE)
