"""Guarantees of `python -m pipelines.chat`: answers on stdout alone, errors with a place and a remedy, and a clean end."""

from __future__ import annotations

import os
import pty
import signal
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
import torch

from pipelines.chat.languages import language_of
from pipelines.chat.model import load
from pipelines.chat.pictures import open_image
from pipelines.errors import BadInput

COMMAND = [sys.executable, "-m", "pipelines.chat"]
FEW = ["--max-new-tokens", "6"]


def chat(*arguments: str | Path, lines: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *map(str, arguments)], input=lines, capture_output=True, text=True, timeout=240
    )


def test_several_turns_about_several_images_are_answered_a_line_each(
    model_table: Path, pictures: list[Path]
) -> None:
    done = chat(
        "--model", model_table, "--image", pictures[0], "--image", pictures[1], *FEW,
        "--ask", "What is in the picture?", "--ask", "图片里有什么？", "--language", "zh",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 2 and "cut after 6 tokens" in done.stderr


def test_lines_of_a_pipe_are_questions_and_commands(model_table: Path, pictures: list[Path]) -> None:
    about = f"/image {pictures[0]}\n\n"
    done = chat("--model", model_table, *FEW, lines=f"{about}/new\n{about}/quit\nWhat is it?\n")
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert first == second
    wrong = chat("--model", model_table, lines="/picture\n")
    assert wrong.returncode == 42 and wrong.stdout == "" and "/help" in wrong.stderr


def test_ctrl_c_ends_without_a_traceback(model_table: Path, pictures: list[Path]) -> None:
    talking = subprocess.Popen(
        [*COMMAND, "--model", str(model_table), "--image", str(pictures[0]), *FEW],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert talking.stdin is not None and talking.stdout is not None
    talking.stdin.write("What is in the picture?\n")
    talking.stdin.flush()
    assert talking.stdout.readline()
    talking.send_signal(signal.SIGINT)
    _, errors = talking.communicate(timeout=60)
    assert talking.returncode == 130 and "Traceback" not in errors


def test_on_a_terminal_an_error_is_shown_and_the_talk_goes_on(
    model_table: Path, pictures: list[Path]
) -> None:
    ours, theirs = pty.openpty()
    talking = subprocess.Popen(
        [*COMMAND, "--model", str(model_table), *FEW],
        stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
    )  # fmt: skip
    os.close(theirs)
    seen = _until(ours, b"> ")
    assert b"as it comes" in seen and b"no images shown" in seen
    os.write(ours, b"/image /nowhere.png\n")
    assert b"there is no such image file" in _until(ours, b"> ")
    os.write(ours, f"/image {pictures[0]}\n\n".encode())
    _until(ours, b"cut after 6 tokens")
    _until(ours, b"> ")
    os.write(ours, b"\x04")
    assert talking.wait(timeout=60) == 0
    os.close(ours)


def _until(terminal: int, end: bytes) -> bytes:
    seen = b""
    while end not in seen:
        seen += os.read(terminal, 4096)
    return seen


def bomb(path: Path, side: int) -> Path:
    """A PNG of a few bytes that says it is so many pixels wide and high."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")
    )
    return path


def test_images_that_cannot_be_used_are_refused_with_a_remedy(tmp_path: Path, pictures: list[Path]) -> None:
    page, cut, large = tmp_path / "page.png", tmp_path / "cut.jpg", tmp_path / "large.png"
    page.write_text("<!doctype html>")
    cut.write_bytes(pictures[0].read_bytes()[:-200])
    large.write_bytes(b"\0" * 20_000_001)
    for path, what, remedy in (
        (tmp_path / "no.png", "no such image file", "check the path"),
        (Path("http://example.org/a.png"), "no such image file", "download the image first"),
        (page, "not an image: HTML", "JPEG, PNG, GIF or WebP"),
        (cut, "truncated image", "a whole"),
        (large, "20,000,001 bytes", "smaller"),
        (bomb(tmp_path / "bomb.png", 9_000), "too many pixels: 9000x9000", "50,000,000 pixels"),
        (bomb(tmp_path / "huge.png", 90_000), "too many pixels: refused by the decoder", "50,000,000"),
    ):
        with pytest.raises(BadInput, match=what) as refused:
            open_image(path)
        assert refused.value.where == str(path) and remedy in refused.value.remedy


def test_folders_that_are_no_model_are_refused_with_a_remedy(
    model_table: Path, tmp_path: Path, pictures: list[Path]
) -> None:
    with pytest.raises(BadInput, match="there is no such model folder"):
        load(tmp_path / "nowhere")
    with pytest.raises(BadInput, match=r"no model: it lacks vision_config\.json") as refused:
        load(tmp_path)
    assert "data/quickstart/finetuned/blend" in refused.value.remedy
    with pytest.raises(BadInput, match="no model") as refused:
        load(model_table.parent)
    assert refused.value.remedy == f"give one of {model_table}"


def test_a_damaged_model_is_refused(model_table: Path, tmp_path: Path) -> None:
    import shutil

    from pipelines.lake import manifest

    damaged = tmp_path / "damaged"
    shutil.copytree(manifest.folder(model_table), damaged)
    assert load(damaged).image_tokens == 4
    weights = damaged / "visual.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(BadInput, match="the model cannot be loaded") as refused:
        load(damaged)
    assert refused.value.where == str(damaged)


def test_bad_input_ends_with_42_and_says_where(model_table: Path, tmp_path: Path) -> None:
    done = chat("--model", model_table, "--image", bomb(tmp_path / "bomb.png", 9_000), "--ask", "What is it?")
    assert done.returncode == 42 and done.stdout == ""
    assert "where:" in done.stderr and "remedy:" in done.stderr and "Traceback" not in done.stderr
    with pytest.raises(BadInput, match="no language 'tlh'") as refused:
        language_of("tlh")
    assert "zh" in refused.value.remedy


def test_the_weights_type_is_chosen_and_frequencies_of_positions_stay_exact(model_table: Path) -> None:
    weights = {
        told: {one.dtype for one in load(model_table, told).parameters()}
        for told in ("auto", "float32", "bfloat16")
    }
    assert weights == {
        "auto": {torch.bfloat16 if torch.cuda.is_available() else torch.float32},
        "float32": {torch.float32},
        "bfloat16": {torch.bfloat16},
    }
    exact, half = (dict(load(model_table, told).named_buffers()) for told in ("float32", "bfloat16"))
    assert any("inv_freq" in name for name in exact)
    assert all(torch.equal(half[name], value) for name, value in exact.items())


def test_a_model_in_bf16_answers(model_table: Path, pictures: list[Path]) -> None:
    done = chat(
        "--model", model_table, "--image", pictures[0], *FEW, "--dtype", "bfloat16", "--ask", "What is in the picture?"
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 1
    assert chat("--model", model_table, "--dtype", "float64").returncode == 2
