"""`python -m pipelines.deploy OVERLAY`: all manifests of an overlay of `k8s/`, to be looked at or applied."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import yaml

from pipelines.deploy.kustomize import FILE_NAME, Manifest, pod_specs, render
from pipelines.errors import BAD_INPUT_EXIT_CODE, BadInput

OVERLAYS = Path(__file__).parents[2] / "k8s" / "overlays"
RUN_IMAGE = "ORCHESTRATOR_IMAGE"
UNSET = "sha256:" + "0" * 64
"""Stands where a person has to put an image's digest."""
CHART_COMPONENTS = {"webserver": "dagster-webserver", "viewer": "dagster-webserver-read-only"}
"""Our web servers, and the label `component` of those that the official chart makes."""
EXAMPLES = {
    "192.0.2.": "the addresses of the object store",
    "my-bucket": "the bucket",
    "store.example": "the object store's address",
    "registry.example": "the registry",
    "111122223333": "the account of AWS",
}
"""What a person has to put something else for, wherever it stands."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m pipelines.deploy", description=__doc__)
    parser.add_argument("overlay", help=f"one of {', '.join(names())}, or the path of a folder of your own")
    parser.add_argument(
        "--ready",
        action="store_true",
        help="fail if something is still as it was shipped: use it before `kubectl apply`",
    )
    parser.add_argument(
        "--for-chart",
        action="store_true",
        help="without Dagster's own processes, which the official chart brings (k8s/helm/values.yaml)",
    )
    arguments = parser.parse_args()
    try:
        found = render(folder(arguments.overlay))
        if arguments.for_chart:
            found = beside_chart(found)
        unset = [*(f"the digest of {image}" for image in without_digest(found)), *examples(found)]
        if unset and arguments.ready:
            raise BadInput(
                f"this is still as it was shipped: {'; '.join(unset)}",
                where=folder(arguments.overlay),
                remedy="put in your own (docs/operations.md, section 2)",
            )
        check_one_orchestrator(found, folder(arguments.overlay) / FILE_NAME)
    except BadInput as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(BAD_INPUT_EXIT_CODE)
    yaml.dump_all(found, sys.stdout, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=200)
    if unset:
        print(
            f"note: before it is applied, put in your own, in {folder(arguments.overlay)}: {'; '.join(unset)}",
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


def examples(found: list[Manifest]) -> list[str]:
    """What stands there as an example, and where."""
    texts = {
        f"{item['kind']} {item['metadata']['name']}": yaml.safe_dump(item, width=10_000) for item in found
    }
    places = {mark: [where for where, text in texts.items() if mark in text] for mark in EXAMPLES}
    return [f"{EXAMPLES[mark]} ({mark}, in {', '.join(where)})" for mark, where in places.items() if where]


def beside_chart(found: list[Manifest]) -> list[Manifest]:
    """What stays of an overlay where the official chart brings Dagster's processes and their configuration.

    The proxy finds the chart's web servers under the names that it knows.
    """
    brought = {("Deployment", name) for name in (*CHART_COMPONENTS, "code-server", "daemon")}
    brought |= {("Service", "code-server"), ("ConfigMap", "dagster-instance")}
    kept = [item for item in found if (item["kind"], item["metadata"]["name"]) not in brought]
    for item in kept:
        if item["kind"] == "Service" and item["metadata"]["name"] in CHART_COMPONENTS:
            item["spec"]["selector"] = {"component": CHART_COMPONENTS[item["metadata"]["name"]]}
    return kept


def check_one_orchestrator(found: list[Manifest], where: Path) -> None:
    """The run workers' image stands in a config map, out of reach of `images`: it must be that of the other processes.

    Raises:
        BadInput: it is another one.
    """
    told = {item["data"].get(RUN_IMAGE) for item in found if item["kind"] == "ConfigMap"} - {None}
    used = {
        spec["containers"][0]["image"]
        for item in found
        if item["metadata"]["name"] == "daemon"
        for spec in pod_specs(item)
    }
    if told and used and told != used:
        raise BadInput(
            f"run workers would have the image {', '.join(sorted(map(str, told)))}, and the daemon {', '.join(sorted(used))}",
            where=where,
            remedy=f"name the same one in `images` and in {RUN_IMAGE}",
        )


if __name__ == "__main__":
    main()
