"""Guarantees of the web page, in a real browser and with a real model: it answers as the model does, and keeps to itself."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page as BrowserPage
from playwright.sync_api import expect, sync_playwright

from models.vision_language import VisionLanguageModel
from pipelines.chat.conversation import Conversation
from pipelines.chat.generation import Generation
from pipelines.chat.languages import request
from pipelines.chat.model import load
from pipelines.chat.pictures import open_image
from pipelines.chat.web import Page, serve
from pipelines.errors import BadInput
from tests.chat.test_command import bomb

SHORT = Generation(max_new_tokens=8)
FIRST, SECOND = "What is in the picture?", "图片里有什么？"
ANSWERS = ".message.bot"


@pytest.fixture(scope="module")
def model(model_table: Path) -> VisionLanguageModel:
    return load(model_table)


@pytest.fixture(scope="module")
def server(model_table: Path) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "pipelines.chat", "--model", str(model_table), "--web"]
    running = subprocess.Popen(
        [*command, "--port", str(port), "--max-new-tokens", "8"], stderr=subprocess.PIPE, text=True
    )
    assert running.stderr is not None
    line = running.stderr.readline()
    assert line.startswith(f"talk at http://127.0.0.1:{port}/"), line
    yield f"http://127.0.0.1:{port}/"
    running.send_signal(signal.SIGINT)
    _, errors = running.communicate(timeout=60)
    assert running.returncode == 0 and "Traceback" not in errors, errors


@pytest.fixture
def page(server: str) -> Iterator[BrowserPage]:
    with sync_playwright() as started:
        chromium = started.chromium.launch(
            executable_path="/usr/bin/chromium",
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        opened = chromium.new_page(viewport={"width": 1100, "height": 800})
        asked: list[str] = []
        problems: list[str] = []
        opened.on("request", lambda request: asked.append(request.url))
        opened.on("console", lambda message: problems.append(message.text))
        opened.set_default_timeout(60_000)
        opened.goto(server)
        opened.wait_for_selector("textarea")
        yield opened
        assert [url for url in asked if not url.startswith((server, "data:", "blob:"))] == []
        assert problems == []
        chromium.close()


def ask(page: BrowserPage, question: str, *files: Path, number: int) -> str:
    """Ask, and wait for the answer of that number."""
    if files:
        page.set_input_files("input[type=file]", [str(file) for file in files])
        expect(page.locator(".thumbnail-item")).to_have_count(len(files), timeout=60_000)
    page.locator("textarea").fill(question)
    page.keyboard.press("Enter")
    expect(page.locator(ANSWERS)).to_have_count(number, timeout=60_000)
    expect(page.get_by_text("cut after 8 tokens")).to_be_visible(timeout=60_000)
    return page.locator(ANSWERS).nth(number - 1).inner_text().strip()


def test_turns_images_and_languages_reach_the_model(
    page: BrowserPage, model: VisionLanguageModel, pictures: list[Path], tmp_path: Path
) -> None:
    talk = Conversation(model, SHORT)
    talk.show(open_image(pictures[0]))
    expected = [talk.ask(FIRST).text, talk.ask(SECOND).text]
    talk.show(open_image(pictures[1]))
    talk.show(open_image(pictures[2]))
    expected.append(talk.ask(request("Which colour?", "zh")).text)

    assert ask(page, FIRST, pictures[0], number=1) == expected[0]
    assert ask(page, SECOND, number=2) == expected[1]
    page.get_by_label("Answer in").click()
    page.get_by_role("option", name="中文").click()
    assert ask(page, "Which colour?", pictures[1], pictures[2], number=3) == expected[2]

    # What cannot be used is said, by its own name, and changes nothing.
    page.set_input_files("input[type=file]", str(bomb(tmp_path / "bomb.png", 9_000)))
    expect(page.locator(".thumbnail-item")).to_have_count(1)
    page.locator("textarea").fill("And this?")
    page.keyboard.press("Enter")
    remark = page.locator("#remarks")
    expect(remark).to_contain_text("too many pixels", timeout=60_000)
    assert "(bomb.png)" in remark.inner_text() and str(tmp_path) not in page.content()
    expect(page.locator(ANSWERS)).to_have_count(3)

    page.get_by_role("button", name="Start anew").click()
    expect(page.locator(ANSWERS)).to_have_count(0)
    page.get_by_label("Answer in").click()
    page.get_by_role("option", name="as the question").click()
    assert ask(page, FIRST, pictures[0], number=1) == expected[0]


def test_the_page_fits_a_phone(page: BrowserPage, pictures: list[Path]) -> None:
    page.set_viewport_size({"width": 375, "height": 800})
    ask(page, FIRST, pictures[0], number=1)
    assert page.evaluate("document.documentElement.scrollWidth") <= 375
    expect(page.get_by_role("button", name="Share")).to_have_count(0)


def test_words_are_shown_as_they_come_and_stop_when_told(
    model: VisionLanguageModel, pictures: list[Path]
) -> None:
    served = Page(model, Generation(max_new_tokens=24), None)
    session = served.session()
    message = {"text": FIRST, "files": [str(pictures[0])]}
    shown = [history for _, history, _ in served.answer(message, [], session, "")]
    words = [history[-1]["content"] for history in shown if history[-1]["role"] == "assistant"]
    assert len(words) > 5 and words[-1].startswith(words[0])
    assert session.conversation.turns == [(f"<image>\n{FIRST}", words[-1])]

    again = served.session()
    growing = served.answer(message, [], again, "")
    next(growing), next(growing)
    again.stop.set()
    *_, (box, history, told) = growing
    assert (box, history) == (message, []) and "Stopped" in told
    assert again.conversation.turns == [] and again.conversation.images == 0


def test_an_address_in_use_is_refused(model: VisionLanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GRADIO_TEMP_DIR", "GRADIO_ANALYTICS_ENABLED", "NO_PROXY"):
        monkeypatch.setenv(name, os.environ.get(name, ""))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(BadInput, match="cannot be served") as refused:
            serve(model, SHORT, None, host="127.0.0.1", port=port)
    assert refused.value.where == f"127.0.0.1:{port}"
