"""`python -m pipelines.benchmark_files SPEC`"""

from pipelines.benchmark_files.spec import STAGE
from pipelines.command_line import main

if __name__ == "__main__":
    main(STAGE)
