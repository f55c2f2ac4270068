"""The report stage: results.json from the tables, and index.html from the results."""

from __future__ import annotations

import json

from pipelines.benchmarks import answers as answers_table
from pipelines.benchmarks import suite
from pipelines.errors import BadInput
from pipelines.lake import manifest
from pipelines.progress import Progress
from pipelines.report import benchmarks, cards, experiment, page
from pipelines.report.crawls import crawls, drift, thumbnails
from pipelines.report.gallery import gallery
from pipelines.report.provenance import curves, provenance, tables, translation, weights
from pipelines.report.results import Results
from pipelines.report.spec import CARDS, PAGE, RESULTS, ReportSpec
from pipelines.stage import Outcome, Work


def run(spec: ReportSpec, work: Work, progress: Progress) -> Outcome:
    """Write the page and the results.

    Raises:
        BadInput: the shares name a model that was not scored.
    """
    progress.start("sections", 3, unit="section")
    scores = json.loads(manifest.file(spec.scores, "scores.json").read_text(encoding="utf-8"))
    if unknown := sorted(set(spec.parameters.shares) - set(scores["models"])):
        raise BadInput(
            f"`shares` names models without scores: {', '.join(unknown)}",
            where="report parameters",
            remedy=f"the scored models are {', '.join(scores['models'])}",
        )
    pivot = spec.parameters.pivot_language
    of_crawls = crawls(spec)
    translated = translation(spec)
    progress.advance()
    asked = suite.load(spec.benchmarks.values(), scores["languages"])
    said = {name: answers_table.read(table) for name, table in spec.answers.items()}
    shown = gallery(asked, said, spec.parameters.gallery_items if said else 0)
    named = tables(spec)
    results = Results(
        title=spec.parameters.title,
        pivot_language=pivot,
        languages=scores["languages"],
        findings=experiment.findings(scores, pivot=pivot),
        aims=experiment.aims(scores, pivot=pivot, crawls=of_crawls, translation=translated),
        crawls=of_crawls,
        drift=drift(spec),
        translation=translated,
        curves=curves(spec),
        scores=scores,
        shares=experiment.shares(scores, spec.parameters.shares, pivot=pivot),
        gallery=shown,
        benchmarks=benchmarks.section(spec, scores, asked),
        tables=provenance(named),
        weights=weights(named),
    )
    progress.advance()
    wanted = {item.image_sha256 for item in shown}
    images = {one.image_sha256: bytes(one.image) for one in asked if one.image_sha256 in wanted}
    (work.out / RESULTS).write_text(results.model_dump_json(indent=1) + "\n", encoding="utf-8")
    if results.benchmarks is not None:
        benchmarks.write_downloads(results.benchmarks, work.out)
    cards.write(spec, results, work.out / CARDS)
    (work.out / PAGE).write_text(page.render(results, images, thumbnails(spec)), encoding="utf-8")
    progress.advance()
    return Outcome(
        metrics={
            "aims_reached": sum(aim.reached is True for aim in results.aims),
            "aims": len(results.aims),
            "claims_shown": sum(finding.agrees for finding in results.findings),
            "claims": len(results.findings),
        }
    )
