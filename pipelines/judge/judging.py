"""Having items judged: the one function that benchmarks call."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from pipelines.judge import overlap
from pipelines.judge.items import Item, Order, Review
from pipelines.judge.prompts import VERSION, pair_prompt, rating_prompt, rule_for, rules_from
from pipelines.judge.reading import scores
from pipelines.judge.spec import Judge
from pipelines.progress import Progress
from pipelines.remote.budget import Estimate
from pipelines.remote.client import ChatClient, Failure, Reply
from pipelines.remote.spec import Conduct

Asked = tuple[Item, Order, str]
"""An item, the order in which its answers stand, and the prompt."""


def judge(
    items: Sequence[Item],
    by: Judge,
    cache: Path,
    progress: Progress,
    *,
    rules: Mapping[str, Path] = MappingProxyType({}),
    conduct: Conduct | None = None,
    account: str = "judge",
) -> list[Review]:
    """A review per item, in their order; after those, where places are swapped, another per item.

    `cache`: the file in which the server's answers are kept; `rules`: published files of rules, by language;
    `account`: on whose budget the server is asked.

    Raises:
        BadInput: the judge's rules, key or address are wrong, or its budget is used up.
        Interrupted: the server is away for too long; what it answered is kept.
    """
    if by.server is None:
        return list(overlap.reviews(items))
    asked = _asked(items, by, rules)
    client = ChatClient(by.server, conduct or Conduct(), cache, account=account)

    def accept(reply: Reply) -> str:
        # A reply that was cut off after its scores is whole where it counts.
        return scores(reply.text, by.protocol, by.reading)[1]

    try:
        prompts = [prompt for _, _, prompt in asked]
        progress.say(f"{by.name}: {client.estimate(prompts, _kind(by)).words()}")
        progress.start(f"judged by {by.name}", len(set(prompts)), unit="review")
        results = client.ask(prompts, _kind(by), accept=accept, done=progress.advance)
    finally:
        client.close()
    return [_review(one, result, by) for one, result in zip(asked, results, strict=True)]


def estimate(
    items: Sequence[Item],
    by: Judge,
    cache: Path,
    *,
    rules: Mapping[str, Path] = MappingProxyType({}),
    conduct: Conduct | None = None,
) -> Estimate | None:
    """What judging would cost, without asking; None where no server is asked."""
    if by.server is None:
        return None
    client = ChatClient(by.server, conduct or Conduct(), cache, account="estimate")
    try:
        return client.estimate([prompt for _, _, prompt in _asked(items, by, rules)], _kind(by))
    finally:
        client.close()


def _kind(by: Judge) -> str:
    # How a reply is read decides which are kept, so the two ways of reading keep their own.
    return f"judge {VERSION} {by.protocol} {by.reading}"


def _asked(items: Sequence[Item], by: Judge, rules: Mapping[str, Path]) -> list[Asked]:
    published = rules_from(rules)
    ruled = [(item, rule_for(item, by.protocol, published)) for item in items]
    if by.protocol == "rating":
        return [(item, "reference_first", rating_prompt(item, rule)) for item, rule in ruled]
    orders: tuple[Order, ...] = ("reference_first", "answer_first") if by.swap else ("reference_first",)
    return [(item, order, pair_prompt(item, rule, order)) for order in orders for item, rule in ruled]


def _review(asked: Asked, result: Reply | Failure, by: Judge) -> Review:
    item, order, prompt = asked
    digest = hashlib.sha256(prompt.encode("utf-8", "surrogatepass")).hexdigest()
    if isinstance(result, Failure):
        return Review(
            item.id, item.language, item.category, order, None, None, result.reason, result.detail,
            judge=by.name, prompt_sha256=digest,
        )  # fmt: skip
    found, _ = scores(result.text, by.protocol, by.reading)
    # A rating is of the answer alone; its share is of the most that it could be.
    reference, answer = (float("nan"), found[0]) if by.protocol == "rating" else (found[0], found[1])
    if order == "answer_first":
        reference, answer = answer, reference
    return Review(
        item.id, item.language, item.category, order,
        None if by.protocol == "rating" else reference, answer, "", result.text,
        judge=result.model, fingerprint=result.system_fingerprint, prompt_sha256=digest, kept=result.kept,
    )  # fmt: skip
