"""`python -m pipelines.report SPEC`, and `python -m pipelines.report show RESULTS.JSON`"""

import sys
from pathlib import Path

from pipelines.command_line import main
from pipelines.errors import BAD_INPUT_EXIT_CODE, BadInput
from pipelines.report.spec import STAGE


def show(path: Path) -> None:
    """Print the results' table."""
    from pipelines.report.terminal import read_results, terminal_table

    try:
        print(terminal_table(read_results(path)))
    except BadInput as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(BAD_INPUT_EXIT_CODE)


if __name__ == "__main__":
    if sys.argv[1:2] == ["show"] and len(sys.argv) == 3:
        show(Path(sys.argv[2]))
    else:
        main(STAGE)
