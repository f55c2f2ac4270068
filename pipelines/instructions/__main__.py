"""`python -m pipelines.instructions SPEC`."""

from pipelines.command_line import main
from pipelines.instructions.spec import STAGE

if __name__ == "__main__":
    main(STAGE)
