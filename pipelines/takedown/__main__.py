"""`python -m pipelines.takedown --workspace data/mine --domain images.example.org`.

Puts URLs and domains on the workspace's takedown list, and says where what they name is: rows, shards, and
every checkpoint that was made from these. The next run of the training shards leaves the rows out, and no new crawl
asks for them.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path

from pipelines.errors import BAD_INPUT_EXIT_CODE, BadInput
from pipelines.lake import location
from pipelines.lake.takedown import Demands
from pipelines.lake.work import UNPUBLISHED
from pipelines.takedown import keep
from pipelines.takedown.find import Found, find
from pipelines.takedown.spec import NAME, Demand

ROWS_SHOWN = 20


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m pipelines.takedown",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--workspace", type=Path, required=True, help="the recipe's `workspace`: a folder or s3://..."
    )
    parser.add_argument("--url", action="append", default=[], help="an image's URL; may be repeated")
    parser.add_argument(
        "--domain", action="append", default=[], help="a domain and all below it; may be repeated"
    )
    parser.add_argument("--note", default="", help="who demanded it and when; kept with the list")
    parser.add_argument("--dry-run", action="store_true", help="only search; the list stays as it is")
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")
    arguments = parser.parse_args()
    demands = [Demand(kind="url", value=url, note=arguments.note) for url in arguments.url]
    demands += [Demand(kind="domain", value=domain, note=arguments.note) for domain in arguments.domain]
    if not demands:
        parser.error("name at least one --url or --domain")
    try:
        found = _take_down(arguments.workspace, demands, dry_run=arguments.dry_run)
    except BadInput as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(BAD_INPUT_EXIT_CODE)
    print(json.dumps(_document(found), indent=1) if arguments.json else _words(found, arguments))


def _take_down(workspace: Path, demands: list[Demand], *, dry_run: bool) -> Found:
    wanted = Demands.of(
        [one.value for one in demands if one.kind == "url"],
        [one.value for one in demands if one.kind == "domain"],
    )
    _, seen = keep.read(workspace / NAME)
    found = find(workspace, wanted, seen)
    if not dry_run:
        keep.add(workspace, demands, found.sightings)
    return found


def _document(found: Found) -> dict[str, object]:
    return {
        "rows": {
            table: [{"uid": uid, "url": url} for uid, url in rows] for table, rows in found.rows.items()
        },
        "shards": [one.model_dump() for one in found.sightings],
        "made_from_them": [dataclasses.asdict(one) for one in found.made],
        "running": found.running,
    }


def _words(found: Found, arguments: argparse.Namespace) -> str:
    lines = []
    for table, rows in found.rows.items():
        lines.append(f"{table}: {len(rows)} rows")
        lines += [f"  {uid}  {url}" for uid, url in rows[:ROWS_SHOWN]]
        if len(rows) > ROWS_SHOWN:
            lines.append(f"  ... and {len(rows) - ROWS_SHOWN} more (--json lists all)")
    if not found.rows:
        lines.append("no row of any crawl is demanded")
    lines.append("shards that contain them:" if found.sightings else "no shard contains them")
    lines += [
        f"  {one.table}/{one.shard}: {one.rows} rows (version {one.data_version})" for one in found.sightings
    ]
    lines.append("made from them:" if found.made else "nothing was made from them")
    for made in found.made:
        since = "" if made.is_current else ", replaced since"
        lines.append(
            f"  {made.table} ({made.stage}, version {made.data_version}{since}), from {made.because}"
        )
        lines += [f"    checkpoint {path}" for path in made.checkpoints]
    lines += [
        f"  in the making, and not published: {table} (its checkpoints lie in {UNPUBLISHED}/)"
        for table in found.running
    ]
    kept = location.url(arguments.workspace / NAME)
    lines.append(
        "dry run: the list was not changed"
        if arguments.dry_run
        else f"noted in {kept}; run the training shards of these crawls again, then what was made from them"
    )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
