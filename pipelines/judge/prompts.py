"""What a judge is asked, word by word; pinned by tests, since a changed word is another judge.

The layout of a pair is that of LLaVA's evaluation (context, question, the reference as the first assistant,
the answer as the second, rule); the project's own rules are in its own words. With published rule files the
prompts are those of the papers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from pipelines.errors import BadInput
from pipelines.judge.items import Item, Order
from pipelines.judge.spec import Protocol

VERSION = "1"
"""Raised when a word below changes."""


class Rule(NamedTuple):
    """What the judge is told to do, and what the two sides are called."""

    text: str
    role: str = "Assistant"


OWN_RULES: Mapping[Protocol, Mapping[str, Rule]] = {
    "pair": {
        "en": Rule(
            "Two assistants answered the question above. You cannot see the picture; the context describes it. "
            "Rate each answer from 1 to 10 for how helpful, relevant, correct and detailed it is; neither its "
            "place nor its length counts. Write a first line that holds nothing but two numbers, the rating of "
            "Assistant 1 and that of Assistant 2, with a space between them. Give your reasons from the second "
            "line on."
        ),
        "zh": Rule(
            "以上是两位助手对问题的回答。你看不到图片，图片内容由上文描述。请从有用、相关、准确、详细四个方面为每个回答打 1 到 10 分，"
            "回答的先后和长短不影响分数。第一行只写两个数字，依次是 Assistant 1 和 Assistant 2 的分数，中间用一个空格隔开；"
            "从第二行起说明理由。"
        ),
    },
    "rating": {
        "en": Rule(
            "Rate from 1 (wrong) to 5 (right) how well the response agrees with the expected answer. Only "
            "correctness counts, not style or length. Write a first line that holds nothing but the number; "
            "give your reason on the second line."
        ),
        "zh": Rule(
            "请根据参考答案判断回答是否正确，打 1（错误）到 5（正确）分。只看正确与否，不看文风和长短。第一行只写一个数字，第二行说明理由。"
        ),
    },
}


def rules_from(files: Mapping[str, Path]) -> dict[str, dict[str, Rule]]:
    """By language and category, the rules in published files: {category: {"prompt": ..., "role": ...}}.

    Raises:
        BadInput: a file is missing or of another form.
    """
    found: dict[str, dict[str, Rule]] = {}
    for language, path in files.items():
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
            found[language] = {
                category: Rule(rule["prompt"], rule.get("role", "Assistant"))
                for category, rule in document.items()
            }
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise BadInput(
                f"the judge's rules cannot be read: {error!r}",
                where=path,
                remedy='a file of rules is JSON of the form {"conv": {"role": "Assistant", "prompt": "..."}}',
            ) from None
    return found


def rule_for(item: Item, protocol: Protocol, published: Mapping[str, Mapping[str, Rule]]) -> Rule:
    """The rule by which an item is judged.

    Raises:
        BadInput: the published rules of its language lack its category.
    """
    if item.language in published:
        rules = published[item.language]
        if item.category not in rules:
            raise BadInput(
                f"there is no rule for the category {item.category!r}",
                where=f"the rules for {item.language}",
                remedy=f"they know {', '.join(sorted(rules))}; correct the item's category, or add a rule",
            )
        return rules[item.category]
    own = OWN_RULES[protocol]
    return own.get(item.language, own["en"])


def pair_prompt(item: Item, rule: Rule, order: Order) -> str:
    """Both answers to a question, side by side."""
    first, second = item.reference, item.answer
    if order == "answer_first":
        first, second = second, first
    sections = [f"[Context]\n{item.context}"] if item.context else []
    sections += [
        f"[Question]\n{item.question}",
        f"[{rule.role} 1]\n{first}",
        f"[End of {rule.role} 1]",
        f"[{rule.role} 2]\n{second}",
        f"[End of {rule.role} 2]",
        f"[System]\n{rule.text}",
    ]
    return "\n\n".join(sections) + "\n\n"


def rating_prompt(item: Item, rule: Rule) -> str:
    """One answer, against what is expected."""
    sections = [
        f"[Question]\n{item.question}",
        f"[Response]\n{item.answer}",
        f"[System]\n{rule.text}",
        f"[Expected answer]\n{item.reference}",
    ]
    if item.human_answers:
        sections.append("[Answers of people]\n" + "; ".join(item.human_answers))
    if item.rationale:
        sections.append(f"[Rationale]\n{item.rationale}")
    return "\n\n".join(sections) + "\n\n"
