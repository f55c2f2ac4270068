"""Small benchmarks in the exact layout of the published files, made here: a few items each, in every language."""

from __future__ import annotations

import base64
import csv
import io
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

COLOURS = ("red", "green", "blue", "yellow", "purple")
WORDS = {
    "en": ("What colour is it?", ("red", "green", "blue", "black")),
    "zh": ("它是什么颜色？", ("红色", "绿色", "蓝色", "黑色")),
    "pt": ("De que cor é?", ("vermelho", "verde", "azul", "preto")),
    "ar": ("ما لونه؟", ("أحمر", "أخضر", "أزرق", "أسود")),
    "tr": ("Ne renk?", ("kırmızı", "yeşil", "mavi", "siyah")),
    "ru": ("Какого он цвета?", ("красный", "зелёный", "синий", "чёрный")),
}


def png(number: int) -> bytes:
    """A small image, another for every number."""
    stream = io.BytesIO()
    Image.new("RGB", (8, 8), (number * 37 % 256, number * 91 % 256, number)).save(stream, "PNG")
    return stream.getvalue()


def encoded(number: int) -> str:
    return base64.b64encode(png(number)).decode()


def tsv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[str]], *, quoted: bool = True) -> None:
    """As pandas writes a TSV: cells with line breaks and marks quoted."""
    with path.open("w", encoding="utf-8", newline="") as stream:
        quoting = csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE
        writer = csv.writer(
            stream, delimiter="\t", quoting=quoting, quotechar='"' if quoted else None, lineterminator="\n"
        )
        writer.writerow(columns)
        writer.writerows(rows)


def mmmb(folder: Path, language: str, count: int = 6) -> None:
    question, options = WORDS[language]
    rows = [
        [str(i), encoded(i), question, "", *options, "ABCD"[i % 4], "colour", "test"] for i in range(count)
    ]
    columns = ["index", "image", "question", "hint", *"ABCD", "answer", "category", "split"]
    tsv(folder / f"mmmb_{language}.tsv", columns, rows, quoted=False)


def mmbench(folder: Path, language: str) -> None:
    """Three items with their rotations, whose images are pointers; one has two options."""
    question, options = WORDS[language]
    rows = []
    for item in range(3):
        of_item = options if item else options[:2]
        for turn in range(len(of_item)):
            turned = [*of_item[turn:], *of_item[:turn], *[""] * (4 - len(of_item))]
            gold = "ABCD"[(item - turn) % len(of_item)] if item else "AB"[(0 - turn) % 2]
            rows.append(
                [
                    str(item + turn * 1_000_000), encoded(item) if turn == 0 else str(item), question, "a hint\nin two lines",
                    *turned, gold, "colour", "finegrained_perception (instance-level)", "dev",
                ]
            )  # fmt: skip
    columns = ["index", "image", "question", "hint", *"ABCD", "answer", "category", "l2-category", "split"]
    tsv(folder / f"mmbench_{language}.tsv", columns, rows)


def one_image_choices(folder: Path, name: str) -> None:
    """MMStar, ScienceQA-IMG, RealWorldQA and SEED-Bench-IMG, which differ in their columns."""
    question, options = WORDS["en"]
    rows = [
        [
            str(i),
            encoded(i),
            f'{question} "{i}"',
            *options,
            "ABCD"[i % 4],
            f"c{i % 2}",
            f"l{i % 3}",
            "some\nhint",
        ]
        for i in range(6)
    ]
    columns = ["index", "image", "question", *"ABCD", "answer", "category", "l2_category", "hint"]
    tsv(folder / f"{name}_en.tsv", columns, rows)


def mme(folder: Path) -> None:
    rows = []
    for image in range(4):
        task = ("existence", "code_reasoning")[image % 2]
        for second, answer in enumerate(("Yes", "No")):
            question = f"Is there a {COLOURS[image + second]} thing? Please answer yes or no."
            index = str(2 * image + second)
            rows.append([index, task, f"{task}/{image}.png", question, answer, encoded(image)])
    tsv(folder / "mme_en.tsv", ["index", "category", "image_path", "question", "answer", "image"], rows)


def xvnli(folder: Path, language: str) -> None:
    labels = ("contradiction", "neutral", "entailment", "-")
    lines(
        folder / f"xvnli_{language}.jsonl",
        [
            {
                "gold_label": label, "sentence1": "caption", "sentence2": f"statement {i}", "captionID": f"{i // 2}.jpg#1",
                "pairID": f"{i // 2}.jpg#1r{i}", "Flikr30kID": str(i // 2),
            }
            for i, label in enumerate(labels)
        ],
    )  # fmt: skip


def xgqa(folder: Path, language: str) -> None:
    document = {
        f"07{i}": {
            "question": f"question {i}?", "imageId": f"{i % 2}", "answer": answer, "fullAnswer": "",
            "types": {"structural": "verify" if answer in ("yes", "no") else "query"}, "isBalanced": True,
        }
        for i, answer in enumerate(("yes", "no", "bottle"))
    }  # fmt: skip
    (folder / f"xgqa_{language}.json").write_text(json.dumps(document))


def llava(folder: Path, language: str) -> None:
    categories = ("conv", "detail", "complex")
    lines(
        folder / f"llava_{language}.jsonl",
        [
            {"question_id": i, "image": "0.jpg", "text": f"question {i}?", "category": c}
            for i, c in enumerate(categories)
        ],
    )
    boxes = [{"category": "dog", "bbox": [0.1, 0.2, 0.3, 0.4]}]
    lines(
        folder / f"llava_context_{language}.jsonl",
        [{"id": "0", "image": "0.jpg", "captions": ["A dog.", "One dog."], "instances": boxes}],
    )
    lines(
        folder / f"llava_reference_{language}.jsonl",
        [{"question_id": i, "text": f"the answer to {i}", "category": c} for i, c in enumerate(categories)],
    )


def unimm(folder: Path, language: str) -> None:
    rows = [
        {
            "question": f"question {i}?", "answer": f"answer {i}", "image": f"{i % 2}.jpg", "category": category,
            "Human Answers": "Human answers are: [one, two]", "context": "because",
        }
        for i, category in enumerate(("AOKVQA", "GQA", "OKVQA", "VQAv2"))
    ]  # fmt: skip
    (folder / f"unimm_{language}.json").write_text(json.dumps(rows))


def lines(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def images(folder: Path) -> Path:
    folder.mkdir()
    for number in range(2):
        (folder / f"{number}.jpg").write_bytes(png(number))
    return folder


def everything(folder: Path) -> dict[str, dict[str, Path]]:
    """Every benchmark in every language it is published in: benchmark -> file name -> path."""
    for language in WORDS:
        mmmb(folder, language)
        mmbench(folder, language)
    for name in ("mmstar", "scienceqa", "realworldqa", "seedbench"):
        one_image_choices(folder, name)
    mme(folder)
    for language in ("en", "ar", "es", "fr", "ru"):
        xvnli(folder, language)
    for language in ("en", "bn", "de", "id", "ko", "pt", "ru", "zh"):
        xgqa(folder, language)
    for language in ("en", "zh"):
        llava(folder, language)
        unimm(folder, language)
    found: dict[str, dict[str, Path]] = {}
    for path in sorted(folder.iterdir()):
        found.setdefault(path.name.split("_")[0], {})[path.name] = path
    return found
