"""Scenes in words: captions, questions and answers, from one grammar table per language."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict

from pipelines.errors import BadInput
from pipelines.world.scenes import COLOURS, COUNTS, OPPOSITE, RELATIONS, SHAPES, SIZES, Group, Relation, Scene

FOLDER = Path(__file__).parent / "grammars"

Topic = Literal["colour", "shape", "count", "size", "position", "relation"]
TOPICS: tuple[Topic, ...] = ("colour", "shape", "count", "size", "position", "relation")
LETTERS = "ABCD"


class Question(BaseModel):
    """A question about a scene, before it is put into a language.

    `side` is where the group is: in the picture, or seen from the other group. `answer` is the right value of
    the topic (a colour, a shape, ...), not a word of any language.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    topic: Topic
    about: Group
    side: Relation
    answer: str


VALUES: dict[Topic, tuple[str, ...]] = {
    "colour": COLOURS,
    "shape": SHAPES,
    "count": tuple(str(count) for count in COUNTS),
    "size": SIZES,
    "position": RELATIONS,
    "relation": SHAPES,
}
"""Every value that the answer to a question of a topic can have."""


class Grammar(BaseModel):
    """The table of one language, and the sentences that it makes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    language: str
    name: str
    sentence_end: str
    capitalise: bool
    numbers: dict[int, str]
    colours: dict[str, str]
    sizes: dict[str, str]
    shapes: dict[str, tuple[str, str]]
    group: str
    places: dict[Relation, str]
    sides: dict[Relation, str]
    relations: dict[Relation, str]
    captions: list[str]
    captions_alone: list[str]
    describe: list[str]
    questions: dict[Topic, list[str]]
    choose: str
    boilerplate: list[str]

    def group_words(self, group: Group) -> str:
        return self.group.format(
            number=self.numbers[group.count],
            size=self.sizes[group.size],
            colour=self.colours[group.colour],
            shape=self.shapes[group.shape][group.count > 1],
        )

    def caption(self, scene: Scene, phrasing: int) -> str:
        """The scene in one sentence that tells all of it; `phrasing` counts modulo the phrasings."""
        if scene.second is None:
            template = self.captions_alone[phrasing % len(self.captions_alone)]
            words = template.format(first=self.group_words(scene.first), side=self.sides[scene.relation])
            return self.sentence(words)
        words = self.captions[phrasing % len(self.captions)].format(
            first=self.group_words(scene.first),
            second=self.group_words(scene.second),
            relation=self.relations[scene.relation],
            side=self.sides[scene.relation],
            opposite_side=self.sides[OPPOSITE[scene.relation]],
        )
        return self.sentence(words)

    def sentence(self, words: str) -> str:
        return (words[0].upper() + words[1:] if self.capitalise else words) + self.sentence_end

    def question(self, question: Question, phrasing: int) -> str:
        templates = self.questions[question.topic]
        return templates[phrasing % len(templates)].format(
            shape=self.shapes[question.about.shape][1],
            colour=self.colours[question.about.colour],
            relation=self.relations[question.side],
        )

    def value(self, topic: Topic, value: str) -> str:
        """A value of a topic in this language's words: what an answer or an option says."""
        if topic == "colour":
            return self.colours[value]
        if topic in ("shape", "relation"):
            return self.shapes[value][0]
        if topic == "count":
            return self.numbers[int(value)]
        if topic == "size":
            return self.sizes[value]
        return next(words for relation, words in self.places.items() if relation == value)

    def choice(self, question: str, options: list[str]) -> str:
        """The question with lettered options, and the request for a letter."""
        lines = [f"{letter}. {option}" for letter, option in zip(LETTERS, options, strict=False)]
        return "\n".join([question, *lines, self.choose])


def ask(scene: Scene, group: Group, topic: Topic) -> Question:
    """The question on `topic` about one group of the scene, with its right answer."""
    answers: dict[Topic, str] = {
        "colour": group.colour,
        "shape": group.shape,
        "count": str(group.count),
        "size": group.size,
        "position": scene.relation_of(group),
        "relation": group.shape,
    }
    return Question(topic=topic, about=group, side=scene.relation_of(group), answer=answers[topic])


def topics_of(scene: Scene) -> tuple[Topic, ...]:
    """What is asked about a scene: of two groups, what both share, and which of them stands where.

    A topic that is there twice is asked twice as often: which stands where is the hardest, and must not crowd out the rest.
    """
    if scene.second is None:
        return ("colour", "shape", "count", "size", "position")
    return (*("colour", "count", "size") * 2, "relation")


@functools.cache
def grammar(language: str) -> Grammar:
    """The grammar of a language.

    Raises:
        BadInput: there is no table for it.
    """
    path = FOLDER / f"{language}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in FOLDER.glob("*.yaml")))
        raise BadInput(
            f"the world has no grammar for the language {language!r}",
            where=path,
            remedy=f"add that table, or use one of: {known}",
        )
    return Grammar.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
