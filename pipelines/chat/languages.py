"""The languages that an answer can be asked for in: their own names, and the two requests in each."""

from __future__ import annotations

from typing import NamedTuple

from pipelines.benchmarks.language import detect, scripts
from pipelines.errors import BadInput

TELLING = 40
"""Characters from which on languages of one script can be told from each other."""


class Language(NamedTuple):
    """A language in its own words."""

    name: str
    describe: str
    """Asks for a description of the image: the question of who asks none. Training asks in these words, too."""
    answer: str
    """Asks for an answer in the language: added to questions in another one."""


LANGUAGES = {
    "en": Language("English", "Describe the picture.", "Answer in English."),
    "zh": Language("中文", "描述这张图片。", "请用中文回答。"),
    "de": Language("Deutsch", "Beschreibe das Bild.", "Antworte auf Deutsch."),
    "fr": Language("Français", "Décris l'image.", "Réponds en français."),
    "es": Language("Español", "Describe la imagen.", "Responde en español."),
    "it": Language("Italiano", "Descrivi l'immagine.", "Rispondi in italiano."),
    "pt": Language("Português", "Descreva a imagem.", "Responda em português."),
    "ar": Language("العربية", "صف الصورة.", "أجب باللغة العربية."),
    "tr": Language("Türkçe", "Resmi betimle.", "Türkçe yanıtla."),
    "ru": Language("Русский", "Опиши картинку.", "Ответь на русском языке."),
    "ja": Language("日本語", "この画像を説明してください。", "日本語で答えてください。"),
    "ko": Language("한국어", "이 그림을 설명해 주세요.", "한국어로 대답해 주세요."),
    "id": Language("Bahasa Indonesia", "Jelaskan gambar ini.", "Jawablah dalam bahasa Indonesia."),
    "bn": Language("বাংলা", "ছবিটি বর্ণনা করুন।", "বাংলায় উত্তর দিন।"),
}


def language_of(code: str) -> Language:
    """The language of an ISO 639 code.

    Raises:
        BadInput: it has no entry here.
    """
    if code in LANGUAGES:
        return LANGUAGES[code]
    raise BadInput(
        f"there is no language {code!r}",
        where="--language",
        remedy=f"give one of {', '.join(LANGUAGES)}; for another, ask in it and leave the language out",
    )


def request(question: str, code: str | None) -> str:
    """The question to put, so that the answer comes in the language `code`; None: in that of the question.

    A question in that language already says it, and stays as it is.
    """
    if code is None:
        return question
    if detect(question, list(LANGUAGES)) == code:
        return question
    return f"{question}\n{language_of(code).answer}"


def spoken(answer: str, code: str | None) -> str | None:
    """The name of the language that an answer is in, where it can be told and is not the one asked for."""
    if code is None or (found := detect(answer, list(LANGUAGES))) in (None, code):
        return None
    if scripts(found) & scripts(code) and len(answer) < TELLING:
        return None
    return LANGUAGES[found].name if found in LANGUAGES else "another language"
