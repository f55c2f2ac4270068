"""`python -m pipelines.judge SPEC`."""

from pipelines.command_line import main
from pipelines.judge.spec import STAGE

if __name__ == "__main__":
    main(STAGE)
