"""`python -m pipelines.chat --model DIR --image FILE`: talk with a model about images."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from pipelines.errors import BAD_INPUT_EXIT_CODE, BadInput

STOPPED_EXIT_CODE = 130
"""What shells expect of a command that Ctrl-C ended."""


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(
        prog="python -m pipelines.chat", description="Talk with a model about images."
    )
    add = parser.add_argument
    add(
        "--model",
        type=Path,
        required=True,
        metavar="DIR",
        help="table of a pretrained or tuned model, or its folder",
    )
    add(
        "--image",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="an image to ask about; repeatable",
    )
    add(
        "--ask",
        action="append",
        default=[],
        metavar="TEXT",
        help="a question; repeated: further turns. Without any, questions are read from the terminal, or line by line from a pipe",
    )
    add(
        "--language",
        metavar="CODE",
        help="language of the answers, such as zh: questions in another one get a request for it",
    )
    add("--web", action="store_true", help="a web page instead of the terminal")
    add(
        "--host",
        default="127.0.0.1",
        help="address of the web page; others than the default let other machines in",
    )
    add("--port", type=int, default=7860, help="port of the web page")
    add(
        "--system",
        type=Path,
        metavar="RECIPE",
        help="a system's recipe, whose `inference` says how answers are looked for",
    )
    add("--beams", type=int, help="beams; 1 is greedy and streams; with more, the answer comes whole")
    add("--max-new-tokens", type=int, metavar="N", help="longest answer")
    add("--repetition-penalty", type=float, metavar="X", help="above 1: the answer repeats itself less")
    add("--temperature", type=float, default=0.0, metavar="T", help="above 0: tokens are drawn, not chosen")
    add("--seed", type=int, default=0, help="of the draws")
    add(
        "--dtype",
        choices=("auto", "bfloat16", "float32"),
        default="auto",
        help="of the weights; auto: bfloat16 on a GPU, half of the memory and as the model was trained, else float32",
    )
    return parser.parse_args()  # fmt: skip


def talk(told: argparse.Namespace) -> None:
    """Load the model and talk.

    Raises:
        BadInput: something that was named cannot be used.
    """
    if told.web and (told.ask or told.image):
        raise BadInput(
            "--web takes no --ask and no --image", where="--web", remedy="ask and show on the page"
        )
    # From here on: torch takes seconds to load, and `--help` does not need it.
    import torch
    from transformers.utils import logging

    from pipelines.chat.conversation import Conversation
    from pipelines.chat.generation import Asked, generation_for
    from pipelines.chat.languages import language_of
    from pipelines.chat.model import folder_of, load, settings_of
    from pipelines.chat.pictures import open_image
    from pipelines.chat.terminal import Terminal, note

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    if told.language is not None:
        language_of(told.language)
    # What can be wrong is looked at before gigabytes of weights are.
    images = [open_image(path) for path in told.image]
    folder_of(told.model)
    model = load(told.model, told.dtype)
    torch.manual_seed(told.seed)
    generation = generation_for(
        model,
        Asked(told.system, told.beams, told.max_new_tokens, told.repetition_penalty, told.temperature),
        settings_of(told.model),
    )
    if told.web:
        from pipelines.chat.web import serve

        serve(model, generation, told.language, host=told.host, port=told.port)
        return
    terminal = Terminal(Conversation(model, generation), told.language)
    for image in images:
        terminal.conversation.show(image)
    for question in told.ask:
        terminal.answer(question)
    if not told.ask:
        terminal.talk(interactive=sys.stdin.isatty())
    elif not generation.streams:
        note(f"each answer came whole, as the best of {generation.beams} beams")


def main() -> None:
    """The command."""
    told = arguments()
    try:
        talk(told)
    except BadInput as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(BAD_INPUT_EXIT_CODE)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        sys.exit(STOPPED_EXIT_CODE)


if __name__ == "__main__":
    main()
