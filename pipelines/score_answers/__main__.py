"""`python -m pipelines.score_answers SPEC`"""

from pipelines.score_answers.spec import STAGE
from pipelines.stage import main

if __name__ == "__main__":
    main(STAGE)
