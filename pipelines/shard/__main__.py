"""`python -m pipelines.shard SPEC`."""

from pipelines.command_line import main
from pipelines.shard.spec import STAGE

if __name__ == "__main__":
    main(STAGE)
