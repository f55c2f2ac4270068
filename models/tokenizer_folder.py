"""A tokenizer as transformers reads it from a folder: the marks of its chat template, and the template itself in Jinja.

`apply_chat_template` then gives the ids that `TemplateChat.encode` gives. What differs is said in `jinja`. CPM-Bee has no
such template: its prompt is a tree of segments, and its tokenizer is none of transformers (`models.cpm_bee_chat`).
`PreTrainedTokenizerFast` reads every such folder; transformers 5's `AutoTokenizer` takes all folders of the type qwen2 for Qwen's
own tokenizer, which that of the quickstart's small model is not.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from models.chat import IMAGE
from models.chat_template import BEGINS, IMAGE_MARKER, VICUNA_SYSTEM, TemplateChat
from models.weights import TOKENIZER_FILE

TOKENIZER_CONFIG_FILE = "tokenizer_config.json"
_UNKNOWN = ("<unk>", "[UNK]")

_SYSTEM_FIRST = """\
{%- if messages and messages[0]['role'] == 'system' -%}
  {%- set system = plain(messages[0]['content']) -%}{%- set turns = messages[1:] -%}
{%- else -%}
  {%- set system = SYSTEM -%}{%- set turns = messages -%}
{%- endif -%}
"""
_MACROS = """\
{%- macro plain(content) -%}
  {%- if content is string -%}{{- content -}}
  {%- else -%}{%- for part in content -%}{{- part['text'] -}}{%- endfor -%}{%- endif -%}
{%- endmacro -%}
{%- macro asked(content) -%}
  {%- if content is string -%}{{- content | replace(MARKER, PICTURE) -}}
  {%- else -%}
    {%- set seen = namespace(words=false) -%}
    {%- for part in content -%}
      {%- if part['type'] == 'image' -%}{{- PICTURE -}}
      {%- elif part['type'] == 'text' -%}
        {%- if not seen.words and not loop.first -%}{{- '\\n' -}}{%- endif -%}
        {%- set seen.words = true -%}{{- part['text'] | replace(MARKER, PICTURE) -}}
      {%- else -%}{{- raise_exception('this model reads text and images, no ' + part['type']) -}}{%- endif -%}
    {%- endfor -%}
  {%- endif -%}
{%- endmacro -%}
"""
_ALTERNATE = """\
  {%- if turn['role'] != ('user' if loop.index0 % 2 == 0 else 'assistant') -%}
    {{- raise_exception('after an optional system message, user and assistant take turns') -}}
  {%- endif -%}
"""
_TEMPLATES = {
    "chatml": """\
{%- if system -%}{{- '<|im_start|>system\\n' + system + '<|im_end|>\\n' -}}{%- endif -%}
{%- for turn in turns -%}
ALTERNATE
  {%- if turn['role'] == 'user' -%}{{- '<|im_start|>user\\n' + asked(turn['content']) + '<|im_end|>\\n' -}}
  {%- else -%}{{- '<|im_start|>assistant\\n' + plain(turn['content']) + '<|im_end|>\\n' -}}{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}
""",
    "llama3": """\
{{- '<|begin_of_text|>' -}}
{%- if system -%}
  {{- '<|start_header_id|>system<|end_header_id|>\\n\\n' + system + '<|eot_id|>' -}}
{%- endif -%}
{%- for turn in turns -%}
ALTERNATE
  {{- '<|start_header_id|>' + turn['role'] + '<|end_header_id|>\\n\\n' -}}
  {%- if turn['role'] == 'user' -%}{{- asked(turn['content']) -}}{%- else -%}{{- plain(turn['content']) -}}{%- endif -%}
  {{- '<|eot_id|>' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' -}}{%- endif -%}
""",
    "vicuna": """\
{{- '<s>' + system + ' ' -}}
{%- for turn in turns -%}
ALTERNATE
  {%- if turn['role'] == 'user' -%}{{- 'USER: ' + asked(turn['content']) + ' ASSISTANT:' -}}
  {%- else -%}{{- ' ' + plain(turn['content']) + '</s>' -}}{%- endif -%}
{%- endfor -%}
""",
    "plain": """\
{%- for turn in turns -%}
ALTERNATE
  {%- if turn['role'] == 'user' -%}
    {%- set question = asked(turn['content']) -%}
    {{- PICTURE * (question.split(PICTURE) | length - 1) -}}
  {%- else -%}{{- plain(turn['content']) + END -}}{%- endif -%}
{%- endfor -%}
""",
}


def save(chat: TemplateChat, folder: Path) -> None:
    """Write the tokenizer of a chat, its marks and its template as a folder of transformers has them."""
    separable(chat.tokenizer).save(os.fspath(folder / TOKENIZER_FILE))
    text = json.dumps(settings(chat), ensure_ascii=False, indent=1)
    (folder / TOKENIZER_CONFIG_FILE).write_text(text + "\n", encoding="utf-8")


def settings(chat: TemplateChat) -> dict[str, Any]:
    """The content of tokenizer_config.json. `eos_token` is what ends an answer; `bos_token` what begins a conversation."""
    begin = BEGINS.get(chat.template)
    unknown = next((one for one in _UNKNOWN if chat.tokenizer.token_to_id(one) is not None), None)
    marks = {
        "bos_token": begin, "eos_token": chat.end, "pad_token": chat.tokenizer.id_to_token(chat.pad_id),
        "unk_token": unknown,
    }  # fmt: skip
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **{name: mark for name, mark in marks.items() if mark is not None},
        "clean_up_tokenization_spaces": False,
        "chat_template": jinja(chat),
    }


def jinja(chat: TemplateChat) -> str:
    """The chat's template for `apply_chat_template`.

    An image is an item `{"type": "image"}` of a message, or a marker `<image>` in its text. It becomes the model's image
    tokens where the tokenizer has one (`<|image|>`); else it stays `<image>`, as in LLaVA: whoever tokenizes the rendered text
    parts it there. Two things a template cannot do: keep a mark in a user's words from ending a turn, which `encode`
    does, and take an answer that begins with white space apart from the line break before it.
    """
    known = chat.tokenizer.token_to_id(IMAGE) is not None
    system = chat.system or (VICUNA_SYSTEM if chat.template == "vicuna" else "")
    constants = {
        "PICTURE": IMAGE * max(chat.image_tokens, 1) if known else IMAGE_MARKER,
        "MARKER": IMAGE_MARKER,
        "SYSTEM": system,
        "END": chat.end,
    }
    told = "".join(
        f"{{%- set {name} = {json.dumps(value, ensure_ascii=False)} -%}}\n"
        for name, value in constants.items()
    )
    return told + _MACROS + _SYSTEM_FIRST + _TEMPLATES[chat.template].replace("ALTERNATE\n", _ALTERNATE)


def separable(tokenizer: Tokenizer) -> Tokenizer:
    """The tokenizer, made to read a text in one piece as `TemplateChat` reads it mark by mark.

    Sentencepiece's begin a text with a space. Some do so at the very beginning alone, and would read the words after a
    mark otherwise in the middle of a conversation than at its start; here each text between two marks begins so.
    """
    document = json.loads(tokenizer.to_str())
    outer = document.get("pre_tokenizer") or {}
    for one in [outer, *outer.get("pretokenizers", [])]:
        if one.get("type") == "Metaspace" and one.get("prepend_scheme") == "first":
            one["prepend_scheme"] = "always"
    return Tokenizer.from_str(json.dumps(document, ensure_ascii=False))
