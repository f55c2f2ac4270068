"""`python -m pipelines.foundations.clip SPEC`."""

from pipelines.command_line import main
from pipelines.foundations.clip.spec import STAGE

if __name__ == "__main__":
    main(STAGE)
