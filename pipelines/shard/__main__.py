"""`python -m pipelines.shard SPEC`."""

from pipelines.shard.spec import STAGE
from pipelines.stage import main

if __name__ == "__main__":
    main(STAGE)
