"""`python -m pipelines.conversations SPEC`."""

from pipelines.command_line import main
from pipelines.conversations.spec import STAGE

if __name__ == "__main__":
    main(STAGE)
