"""`python -m pipelines.held_out SPEC`."""

from pipelines.command_line import main
from pipelines.held_out.spec import STAGE

if __name__ == "__main__":
    main(STAGE)
