"""`python -m pipelines.translate SPEC`."""

from pipelines.stage import main
from pipelines.translate.spec import STAGE

if __name__ == "__main__":
    main(STAGE)
