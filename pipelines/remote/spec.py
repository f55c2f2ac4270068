"""What is asked of an OpenAI-compatible server, and how it is asked.

`Server` decides the answers and belongs to what a result is made of; `Conduct` is how politely, for how
long and for how much money the asking goes on, and never changes an answer.
"""

from __future__ import annotations

from typing import Any, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

REQUESTS_FILE = "requests.sqlite"
"""In a folder of kept work: what servers answered."""


class Server(BaseModel):
    """A model behind `<base_url>/chat/completions`: OpenAI's own, vLLM, SGLang, llama.cpp and others."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    base_url: str = Field(description="such as https://api.openai.com/v1 or http://127.0.0.1:8000/v1")
    model: str = Field(min_length=1, description="the model's full, dated name: an alias changes silently")
    api_key_env: str | None = Field(
        None,
        pattern=r"^[A-Z_][A-Z0-9_]*$",
        description="name of the environment variable that holds the key; never the key",
    )
    temperature: float = Field(0.0, ge=0, le=2)
    max_tokens: int = Field(1024, ge=1, description="longest answer")
    seed: int | None = Field(None, description="sent where given; few servers promise to honour it")
    system: str = Field("", description="system message; none where empty")
    extra_body: dict[str, Any] = Field(
        {}, description="further fields of the request, such as a server's own switches; never secrets"
    )

    @field_validator("base_url")
    @classmethod
    def _plain_address(cls, value: str) -> str:
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("this is no http(s) address")
        if parts.username or parts.password or parts.query or parts.fragment:
            raise ValueError("an address has no user, password, query or fragment: keys go by `api_key_env`")
        return value.rstrip("/")


class Budget(BaseModel):
    """What may be spent on one table, over all of its runs. Prices are per million tokens."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    most_requests: int | None = Field(None, ge=0)
    most_tokens: int | None = Field(None, ge=0, description="of prompts and answers together")
    most_cost: float | None = Field(None, ge=0)
    prompt_price: float = Field(0.0, ge=0)
    answer_price: float = Field(0.0, ge=0)
    currency: str = "USD"

    @model_validator(mode="after")
    def _priced(self) -> Self:
        if self.most_cost is not None and not (self.prompt_price or self.answer_price):
            raise ValueError("`most_cost` needs `prompt_price` and `answer_price`, per million tokens")
        return self

    def cost(self, prompt_tokens: int, answer_tokens: int) -> float:
        return (prompt_tokens * self.prompt_price + answer_tokens * self.answer_price) / 1e6


class Conduct(BaseModel):
    """How a server is asked."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    concurrency: int = Field(8, ge=1, description="requests under way at once")
    connect_seconds: float = Field(10.0, gt=0)
    request_seconds: float = Field(180.0, gt=0, description="for the whole of a request, its answer read")
    attempts: int = Field(4, ge=1, description="of a request that the server fails to answer")
    backoff_seconds: float = Field(1.0, gt=0, description="before the second attempt; doubles each time")
    longest_wait_seconds: float = Field(
        60.0, gt=0, description="between two attempts, unless Retry-After is longer"
    )
    outage_seconds: float = Field(
        600.0, gt=0, description="without one answer, and the run stops: it goes on when run again"
    )
    most_failures_in_a_row: int = Field(
        20, ge=1, description="requests given up without one answer between them, and the run stops"
    )
    most_bytes: int = Field(4_000_000, ge=1000, description="longest body that is read")
    budget: Budget = Budget()
