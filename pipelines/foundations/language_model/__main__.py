"""`python -m pipelines.foundations.language_model SPEC`."""

from pipelines.command_line import main
from pipelines.foundations.language_model.spec import STAGE

main(STAGE)
