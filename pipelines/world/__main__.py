"""`python -m pipelines.world SPEC`"""

from pipelines.command_line import main
from pipelines.world.spec import STAGE

if __name__ == "__main__":
    main(STAGE)
