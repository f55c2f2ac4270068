"""The conversation on a web page, for one person at a time on this machine. Nothing in it comes from elsewhere.

The page is Gradio's, with its analytics, sharing, API pages and fonts from the net switched off; a content security policy
keeps the browser from fetching what the page might still name.
"""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Iterator, MutableMapping
from pathlib import Path
from typing import Any

from models.vision_language import VisionLanguageModel
from pipelines.chat.conversation import Answer, Conversation
from pipelines.chat.generation import Generation
from pipelines.chat.languages import LANGUAGES, request, spoken
from pipelines.chat.pictures import KINDS, LIMITS, open_image
from pipelines.chat.streaming import Stopped, growing
from pipelines.chat.terminal import note
from pipelines.errors import BadInput

TITLE = "Talk with the model"
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; worker-src 'self' blob:; connect-src 'self'; "
    "frame-ancestors 'none'; form-action 'self'; base-uri 'self'"
)
STYLE = """
footer, button[aria-label="Share"] { display: none !important; }
.message, .message * { unicode-bidi: plaintext; }
#about { margin: 0; }
"""
UPLOADS_KEPT = (600, 3600)
"""How often uploaded images are looked at, and how old they get, in seconds."""

History = list[dict[str, Any]]


class Session:
    """What one browser window has."""

    def __init__(self, model: VisionLanguageModel, generation: Generation) -> None:
        self.conversation = Conversation(model, generation)
        self.stop = threading.Event()


class Page:
    """The page of a model, and what its buttons do."""

    def __init__(self, model: VisionLanguageModel, generation: Generation, language: str | None) -> None:
        self.model, self.generation, self.language = model, generation, language
        self._one_at_a_time = threading.Lock()

    def session(self) -> Session:
        """A new conversation."""
        return Session(self.model, self.generation)

    def answer(
        self, message: dict[str, Any], history: History, session: Session, code: str
    ) -> Iterator[tuple[Any, History, str]]:
        """What the box and the history show while an answer comes, and what is to be noted."""
        question, files = message["text"].strip(), [Path(file) for file in message["files"]]
        language = code or None
        if not question and files:
            question = LANGUAGES[language or "en"].describe
        session.stop = threading.Event()
        asked = [{"role": "user", "content": {"path": str(file)}} for file in files]
        asked.append({"role": "user", "content": question})
        try:
            with self._one_at_a_time:
                for file in files:
                    session.conversation.show(open_image(file, name=file.name))
                put = request(question, language)
                yield None, [*history, *asked], ""
                for piece in growing(lambda say: session.conversation.ask(put, say), session.stop):
                    text = piece.text if isinstance(piece, Answer) else piece
                    shown = [*history, *asked, {"role": "assistant", "content": text}]
                    told = self._remarks(session, put, piece, language) if isinstance(piece, Answer) else ""
                    yield None, shown, told
        except BadInput as error:
            session.conversation.forget_new_images()
            yield message, history, f"**{error.what}** ({error.where}): {error.remedy}"
        except Stopped:
            session.conversation.forget_new_images()
            yield message, history, "Stopped; the question is forgotten."

    def _remarks(self, session: Session, question: str, answer: Answer, language: str | None) -> str:
        remarks = []
        if unknown := session.conversation.unknown_words(question):
            remarks.append(f"The model has no word for {', '.join(unknown)}.")
        if answer.cut is not None:
            remarks.append(f"The answer was cut after {answer.cut} tokens.")
        if other := spoken(answer.text, language):
            remarks.append(f"The answer seems to be in {other}.")
        return " ".join(remarks)

    def blocks(self) -> Any:
        """The page, to be launched."""
        import gradio as gr

        comes = (
            "Answers come word by word."
            if self.generation.streams
            else f"Each answer comes whole, as the best of {self.generation.beams} beams."
        )
        with gr.Blocks(
            title=TITLE, analytics_enabled=False, fill_height=True, delete_cache=UPLOADS_KEPT
        ) as page:
            session = gr.State()
            gr.Markdown(
                f"## {TITLE}\n{comes} {KINDS}; several images and turns belong together.", elem_id="about"
            )
            with gr.Row(equal_height=True):
                language = gr.Dropdown(
                    [("as the question", ""), *((one.name, code) for code, one in LANGUAGES.items())],
                    value=self.language or "", label="Answer in", scale=3, min_width=160,
                )  # fmt: skip
                anew = gr.Button("Start anew", scale=1, min_width=110)
            talk = gr.Chatbot(
                label="Conversation", show_label=False, render_markdown=False, buttons=["copy"],
                feedback_options=None, height="60vh", placeholder="Add an image and ask about it.",
            )  # fmt: skip
            remarks = gr.Markdown(elem_id="remarks")
            box = gr.MultimodalTextbox(
                placeholder="Ask in any language the model knows", show_label=False, file_count="multiple",
                file_types=["image"], sources=["upload"], stop_btn=True, autofocus=True, max_plain_text_length=100_000,
            )  # fmt: skip
            private: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
            page.load(self.session, None, session, **private)
            # One model answers one question at a time; the others wait.
            box.submit(
                self.answer, [box, talk, session, language], [box, talk, remarks],
                concurrency_limit=1, **private,
            )  # fmt: skip
            box.stop(lambda session: session.stop.set(), session, None, queue=False, **private)
            anew.click(lambda: (self.session(), [], "", None), None, [session, talk, remarks, box], **private)
        return page


class KeepsToItself:
    """Puts the content security policy on every answer of the server."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        async def with_policy(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                policy = (b"content-security-policy", POLICY.encode())
                message["headers"] = [
                    *message.get("headers", []),
                    policy,
                    (b"referrer-policy", b"no-referrer"),
                ]
            await send(message)

        await self.app(scope, receive, with_policy if scope["type"] == "http" else send)


def serve(
    model: VisionLanguageModel, generation: Generation, language: str | None, *, host: str, port: int
) -> None:
    """Serve the page until Ctrl-C.

    Raises:
        BadInput: the address cannot be used.
    """
    with tempfile.TemporaryDirectory(prefix="chat-") as uploads:
        # Gradio reads these when it is imported. Its own start asks this machine, which no proxy must answer.
        os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_TEMP_DIR": uploads}
        os.environ["NO_PROXY"] = ",".join(filter(None, (os.environ.get("NO_PROXY"), host, "localhost")))
        import gradio as gr
        from starlette.middleware import Middleware

        page = Page(model, generation, language).blocks()
        try:
            _, url, _ = page.launch(
                server_name=host, server_port=port, share=False, prevent_thread_lock=True, quiet=True,
                inbrowser=False, ssr_mode=False, pwa=False, mcp_server=False, enable_monitoring=False,
                footer_links=[], run_history=False, max_file_size=LIMITS.max_bytes, css=STYLE,
                theme=gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
                app_kwargs={"middleware": [Middleware(KeepsToItself)]},
            )  # fmt: skip
        except OSError as error:
            raise BadInput(
                f"the web page cannot be served there: {error}", where=f"{host}:{port}",
                remedy="choose another --port, or end what uses this one",
            ) from None  # fmt: skip
        note(f"talk at {url}   (Ctrl-C ends it)")
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            note("ended")
        finally:
            page.close(verbose=False)
