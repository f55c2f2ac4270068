"""`python -m pipelines.score_answers SPEC`"""

from pipelines.command_line import main
from pipelines.score_answers.spec import STAGE

if __name__ == "__main__":
    main(STAGE)
