"""`python -m pipelines.answer SPEC`"""

from pipelines.answer.spec import STAGE
from pipelines.command_line import main

if __name__ == "__main__":
    main(STAGE)
