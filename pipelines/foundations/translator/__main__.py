"""`python -m pipelines.foundations.translator SPEC`."""

from pipelines.command_line import main
from pipelines.foundations.translator.spec import STAGE

if __name__ == "__main__":
    main(STAGE)
