"""`python -m pipelines.foundations.published SPEC`."""

from pipelines.command_line import main
from pipelines.foundations.published.spec import STAGE

main(STAGE)
