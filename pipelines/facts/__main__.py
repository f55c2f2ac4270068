"""`python -m pipelines.facts SPEC`."""

from pipelines.command_line import main
from pipelines.facts.spec import STAGE

if __name__ == "__main__":
    main(STAGE)
