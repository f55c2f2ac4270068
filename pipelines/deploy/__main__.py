"""`python -m pipelines.deploy OVERLAY`: all manifests of an overlay of `k8s/`, to be looked at or applied."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import yaml

from pipelines.deploy.kustomize import FILE_NAME, Manifest, render
from pipelines.errors import BAD_INPUT_EXIT_CODE, BadInput

OVERLAYS = Path(__file__).parents[2] / "k8s" / "overlays"
UNSET = "sha256:" + "0" * 64
"""Stands where a person has to put an image's digest."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m pipelines.deploy", description=__doc__)
    parser.add_argument("overlay", help=f"one of {', '.join(names())}, or the path of a folder of your own")
    parser.add_argument(
        "--ready",
        action="store_true",
        help="fail if a digest has not been set: use it before `kubectl apply`",
    )
    arguments = parser.parse_args()
    try:
        found = render(folder(arguments.overlay))
        unset = without_digest(found)
        if unset and arguments.ready:
            raise BadInput(
                f"these images have no digest yet: {', '.join(unset)}",
                where=folder(arguments.overlay) / FILE_NAME,
                remedy="put the digest of each there (docs/operations.md, Images)",
            )
    except BadInput as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(BAD_INPUT_EXIT_CODE)
    yaml.dump_all(found, sys.stdout, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=200)
    if unset:
        print(
            f"note: no digest is set for {', '.join(unset)}: put them into {folder(arguments.overlay) / FILE_NAME}",
            file=sys.stderr,
        )


class _Dumper(yaml.SafeDumper):
    """Several lines of text as a block, and nothing by reference."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)


def names() -> list[str]:
    """The overlays that there are."""
    return sorted(path.parent.name for path in OVERLAYS.glob(f"*/{FILE_NAME}"))


def folder(overlay: str) -> Path:
    """The folder of an overlay, by its name or path.

    Raises:
        BadInput: there is none.
    """
    for place in (OVERLAYS / overlay, Path(overlay)):
        if (place / FILE_NAME).is_file():
            return place
    raise BadInput(
        f"there is no overlay {overlay!r}", where=OVERLAYS, remedy=f"use one of: {', '.join(names())}"
    )


def without_digest(found: list[Manifest]) -> list[str]:
    """Images whose digest a person has yet to put in, wherever they stand."""
    texts = [word.strip("\"',") for item in found for word in yaml.safe_dump(item, width=10_000).split()]
    return sorted({text.partition("@")[0].rpartition("=")[2] for text in texts if UNSET in text})


if __name__ == "__main__":
    main()
