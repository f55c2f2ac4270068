"""`python -m pipelines.translate SPEC`."""

from pipelines.command_line import main
from pipelines.translate.spec import STAGE

if __name__ == "__main__":
    main(STAGE)
