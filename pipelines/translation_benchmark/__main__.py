"""`python -m pipelines.translation_benchmark SPEC`."""

from pipelines.command_line import main
from pipelines.translation_benchmark.spec import STAGE

if __name__ == "__main__":
    main(STAGE)
