"""Small data in the true layout of each corpus that has a ready manifest: file names, columns, keys, archives."""

from __future__ import annotations

import base64
import io
import json
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tests.download.hostile_server import picture


def archive(path: Path, names: list[str], *, compression: int = zipfile.ZIP_STORED) -> None:
    """A zip file of one picture per name."""
    with zipfile.ZipFile(path, "w", compression) as target:
        target.writestr("a-folder/", b"")
        for seed, name in enumerate(names):
            target.writestr(name, picture(seed))


def tar(path: Path, members: dict[str, bytes]) -> None:
    with tarfile.open(path, "w") as target:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            target.addfile(info, io.BytesIO(content))


def dump(path: Path, document: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, ensure_ascii=False), encoding="utf-8")


def dump_lines(path: Path, rows: list[object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def said(*texts: str) -> list[dict[str, str]]:
    """Messages as LLaVA writes them: questions and answers in turn."""
    return [{"from": ("human", "gpt")[at % 2], "value": text} for at, text in enumerate(texts)]


def coco_captions(folder: Path) -> None:
    images = [
        {
            "license": 3, "file_name": f"{number:012d}.jpg", "height": 48, "width": 64, "id": number,
            "coco_url": f"http://images.cocodataset.org/train2017/{number:012d}.jpg",
            "date_captured": "2013-11-14 11:18:45", "flickr_url": "http://farm9.staticflickr.com/x.jpg",
        }
        for number in (9, 25, 30)
    ]  # fmt: skip
    annotations = [
        {"image_id": image, "id": 100 * image + nth, "caption": f"Caption {nth} of {image}."}
        for nth in range(2)
        for image in (30, 9, 25)
    ]
    annotations.append({"image_id": 31, "id": 1, "caption": "Of an image that is not listed."})
    dump(
        folder / "annotations/captions_train2017.json",
        {"info": {"year": 2017}, "images": images, "licenses": [{"id": 3}], "annotations": annotations},
    )
    archive(folder / "train2017.zip", [f"train2017/{number:012d}.jpg" for number in (9, 25)])


def visual_genome(folder: Path) -> None:
    where = "https://cs.stanford.edu/people/rak248"
    dump(
        folder / "image_data.json",
        [
            {"width": 800, "url": f"{where}/VG_100K_2/1.jpg", "height": 600, "image_id": 1, "coco_id": None},
            {"width": 800, "url": f"{where}/VG_100K/2.jpg", "height": 600, "image_id": 2, "coco_id": None},
        ],
    )
    regions = [
        {
            "region_id": at,
            "width": 10 * at,
            "height": 10,
            "image_id": 1,
            "phrase": f"phrase {at}",
            "y": 0,
            "x": 0,
        }
        for at in range(1, 12)
    ]
    regions.append({**regions[-1], "region_id": 12, "phrase": "Phrase 11"})
    other = [{"region_id": 20, "width": 5, "height": 5, "image_id": 2, "phrase": "a tree", "y": 0, "x": 0}]
    dump(folder / "region_descriptions.json", [{"regions": regions, "id": 1}, {"regions": other, "id": 2}])
    archive(folder / "images.zip", ["VG_100K/2.jpg"], compression=zipfile.ZIP_DEFLATED)
    archive(folder / "images2.zip", ["VG_100K_2/1.jpg"])


def cc3m(folder: Path) -> None:
    rows = [
        'a "quoted" word , and more\thttp://a.example/1.jpg',
        "a tree\thttp://a.example/2.jpg",
        "one field",
    ]
    (folder / "Train_GCC-training.tsv").write_text("\n".join(rows) + "\n")


def cc12m(folder: Path) -> None:
    rows = [
        'http://a.example/1.jpg\t"Open quote, <PERSON>',
        "http://a.example/2.jpg\tb",
        "http://a.example/3.jpg",
    ]
    (folder / "cc12m.tsv").write_text("\n".join(rows) + "\n")


def laion_2b_en(folder: Path) -> None:
    table = {
        "SAMPLE_ID": [1, 2, 3], "URL": ["http://a.example/1.jpg", "https://b.example/2.jpg", None],
        "TEXT": ["one", "two", "three"], "HEIGHT": [1, 1, 1], "WIDTH": [1, 1, 1], "LICENSE": ["?"] * 3,
        "NSFW": ["UNLIKELY"] * 3, "similarity": [0.3, 0.3, 0.3],
    }  # fmt: skip
    pq.write_table(
        pa.table(table), folder / "part-00000-5114fd87-297e-42b0-9d11-50f1df323dfa-c000.snappy.parquet"
    )


def laion_coco(folder: Path) -> None:
    table = {
        "URL": ["http://a.example/1.jpg", "http://a.example/2.jpg", "ftp://a.example/3.jpg"],
        "TEXT": ["alt", "alt", "alt"], "top_caption": ["a cat on a mat", "a dog", "a bird"],
        "all_captions": [["a", "b"]] * 3, "all_similarities": [[0.1, 0.2]] * 3, "similarity": [0.3] * 3,
        "WIDTH": [1.0] * 3, "HEIGHT": [1.0] * 3, "pwatermark": [0.1] * 3, "punsafe": [0.1] * 3,
    }  # fmt: skip
    pq.write_table(
        pa.table(table), folder / "part-00000-2256f782-126f-4dc6-b9c6-e6757637749d-c000.snappy.parquet"
    )


def wukong(folder: Path) -> None:
    (folder / "wukong_release").mkdir()
    for number, rows in ((0, ['https://a.example/1.jpg,"一只猫,\n在垫子上"']), (10, ["https://a.example/3.jpg,狗", "坏"]),
                         (2, ["https://a.example/2.jpg,树"])):  # fmt: skip
        path = folder / f"wukong_release/wukong_100m_{number}.csv"
        path.write_text("\n".join(["url,caption", *rows]) + "\n", encoding="utf-8")


def zero(folder: Path) -> None:
    dump_lines(
        folder / "zero_000.json",
        [
            {"url": "http://a.example/1.jpg", "title": "一只猫"},
            {"url": "http://a.example/2.jpg", "title": "狗"},
            {"url": "x"},
        ],
    )


def llava_instruct_150k(folder: Path) -> None:
    long = said("What is it?\n<image>", "A cat.", "Where?", "On a mat.", "Why?", "It is warm there.")
    dump(
        folder / "llava_instruct_150k.json",
        [
            {"id": "000000033471", "image": "000000033471.jpg", "conversations": long},
            {
                "id": "000000033472",
                "image": "000000033472.jpg",
                "conversations": said("<image>\nDescribe it.", "A dog."),
            },
            {"id": "odd", "image": "000000033471.jpg", "conversations": long[:3]},
        ],
    )
    archive(folder / "train2017.zip", ["train2017/000000033471.jpg", "train2017/000000033472.jpg"])


def llava_1_5_pretrain(folder: Path) -> None:
    entries = [
        {
            "id": name,
            "image": f"00453/{name}.jpg",
            "conversations": said("Describe it.\n<image>", f"caption of {name}"),
        }
        for name in ("004539375", "004539376")
    ]
    entries.append({**entries[0], "conversations": said("<image>\nWhat?", "A.", "And?", "B.")})
    dump(folder / "blip_laion_cc_sbu_558k.json", entries)
    archive(folder / "images.zip", ["00453/004539375.jpg", "00453/004539376.jpg"])


def _parrot_captions(name: str, size: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        entries = [
            {
                "id": str(at),
                "image": f"{at}.jpg",
                "conversations": said("<image>\nDescribe it.", f"Scene {at}."),
            }
            for at in range(2)
        ]
        entries.append({**entries[0], "image": "gone.jpg"})
        dump(folder / f"meta_files/{name}_{size}.json", entries)
        images = folder / f"images/parrot_{name}"
        images.mkdir(parents=True)
        for at in range(2):
            (images / f"{at}.jpg").write_bytes(picture(at))

    return make


def llava_1_5_finetune(folder: Path) -> None:
    entries: list[dict[str, object]] = [
        {
            "id": "1",
            "image": "coco/train2017/1.jpg",
            "conversations": said("<image>\nWhat?", "A cat.", "Colour?", "Red."),
        },
        {"id": "2", "model": "", "conversations": said("Write a poem.", "Roses are red,\nviolets are blue.")},
        {"id": "3", "image": "vg/VG_100K/gone.jpg", "conversations": said("<image>\nWhat?", "A dog.")},
    ]
    dump(folder / "llava_v1_5_mix665k.json", entries)
    (folder / "images/coco/train2017").mkdir(parents=True)
    (folder / "images/coco/train2017/1.jpg").write_bytes(picture(1))


def _sharegpt4v(language: str, size: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        names = ["coco/train2017/1.jpg", "sam/images/sa_1.jpg", "../outside.jpg"]
        entries = [
            {"id": name, "image": name, "conversations": said("<image>\nما هذا؟", "قطة على بساط.")}
            for name in names
        ]
        dump(folder / f"sharegpt_4v/sharegpt4v_sft_{language}_{size}.json", entries)
        for name in names[:2]:
            (folder / "images" / name).parent.mkdir(parents=True)
            (folder / "images" / name).write_bytes(picture(len(name)))
        (folder / "outside.jpg").write_bytes(picture(3))

    return make


def unimm_chat(folder: Path) -> None:
    talks = [
        said("<image>\nWhat?", "A cat.", "Where?", "Here."),
        said("Describe it.<image>", "A dog."),
        said("So?"),
    ]
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table({
        "ds_name": ["unimm"] * 3, "image": pa.array([{"bytes": picture(at), "path": None} for at in range(3)], image),
        "conversation": [json.dumps(talk) for talk in talks], "origin_dataset": ["coco"] * 3, "idx": [0, 1, 2],
        "image_path": [f"train2014/COCO_{at}.jpg" for at in range(3)],
    })  # fmt: skip
    pq.write_table(table, folder / "UniMM-Chat_00000000-00000012.parquet", row_group_size=2)


def m3it_en(folder: Path) -> None:
    tasks = [
        "captioning/coco/train", "captioning/textcap/train", "captioning/image-paragraph-captioning/train",
        "classification/snli-ve/esnlive_train", "vqa/vqav2/train", "vqa/shapes/train.large", "vqa/okvqa/train_v2",
        "vqa/a-okvqa/train",
    ]  # fmt: skip
    for number, task in enumerate(tasks):
        encoded = base64.b64encode(picture(number)).decode()
        row = {
            "instruction": "Answer it.",
            "inputs": f"What is {number}?",
            "image_base64_str": encoded,
            "outputs": "A cat.",
        }
        path = folder / f"data/{task}.jsonl"
        if number == 0:
            rows: list[object] = [{"inputs": "", "img_str": encoded, "outputs": "A cat on a mat."}]
        elif number == 1:
            rows = [row, {**row, "image_base64_str": [encoded, encoded]}]
        else:
            rows = [{**row, "image_base64_str": [encoded]}]
        dump_lines(path, rows)
        dump(path.parent / "instructions.json", ["Describe the picture.", "What do you see?"])


LAYOUTS: dict[str, Callable[[Path], None]] = {
    "cc12m": cc12m, "cc3m": cc3m, "coco-captions": coco_captions, "laion-2b-en": laion_2b_en, "laion-coco": laion_coco,
    "llava-1-5-finetune": llava_1_5_finetune, "llava-1-5-pretrain": llava_1_5_pretrain,
    "llava-instruct-150k": llava_instruct_150k, "m3it-en": m3it_en, "unimm-chat": unimm_chat,
    "parrot-laion-caption": _parrot_captions("laion", "12k"),
    "parrot-cc12m-caption": _parrot_captions("cc12m", "645k"),
    "visual-genome": visual_genome, "wukong": wukong, "zero": zero,
    **{f"sharegpt4v-{language}": _sharegpt4v(language, size)
       for language, size in {"zh": "71k", "pt": "14k", "ar": "12k", "tr": "17k", "ru": "14k"}.items()},
}  # fmt: skip
"""Name of the ready manifest -> what writes its data."""
