"""`python -m pipelines.filter SPEC`."""

from pipelines.command_line import main
from pipelines.filter.spec import STAGE

if __name__ == "__main__":
    main(STAGE)
