"""`python -m pipelines.score SPEC`."""

from pipelines.command_line import main
from pipelines.score.spec import STAGE

if __name__ == "__main__":
    main(STAGE)
