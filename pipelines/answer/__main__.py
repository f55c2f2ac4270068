"""`python -m pipelines.answer SPEC`"""

from pipelines.answer.spec import STAGE
from pipelines.stage import main

if __name__ == "__main__":
    main(STAGE)
