"""The answers as OpenAPI describes them. They are documentation and a test's measure: answers are not built through them."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

Task = Literal["classification", "multilabel", "regression"]


class What(BaseModel):
    what: str = Field(description="What happened.")
    why: str = Field(description="The cause, if known.")
    fix: str = Field(description="What to do next, if there is something.")


class Refusal(BaseModel):
    error: What
    request_id: str


class Ranked(BaseModel):
    label: str
    probability: float


class Neighbour(BaseModel):
    """A photo learned from. image: the address of a small picture of it."""

    label: str
    similarity: float = Field(description="Cosine similarity of the features, up to 1.")
    image: str


class Kept(BaseModel):
    path: str = Field(description="Below the folder of corrections.")
    label: str
    digest: str = Field(description="SHA-256 of the picture's bytes.")
    request_id: str


class Heat(BaseModel):
    """Where the model looks, or `error`: why it cannot say."""

    label: str | None = None
    method: str | None = None
    image: str | None = Field(None, description="A small transparent PNG as a data: URL; it covers `box`.")
    box: list[float] | None = Field(
        None, description="Left, top, right and bottom in shares of the upright picture: what the network sees of it."
    )
    error: str | None = None


class Row(BaseModel):
    """What is said of one picture, by the keys that `rehead predict --format jsonl` has; or `error`: why it cannot be read."""

    name: str | None = Field(description="Of the file, as it was sent.")
    error: str | None = None
    label: str | None = None
    probability: float | None = None
    top: list[Ranked] | None = None
    labels: list[str] | None = Field(None, description="Of a model of several labels: those that are named.")
    probabilities: dict[str, float] | None = None
    value: float | None = Field(None, description="Of a model of numbers.")
    unsure: bool | None = None
    unfamiliar: bool | None = None
    distance: float | None = None
    heat: Heat | None = None
    nearest: list[Neighbour] | None = None


class Answer(BaseModel):
    model: str
    version: str
    task: Task
    request_id: str
    results: list[Row]


class Unreadable(Answer):
    """None of the pictures can be read. detail: why, where one picture was sent as it is."""

    detail: str | None = None


class Size(BaseModel):
    height: int
    width: int


class Model(BaseModel):
    name: str
    version: str
    task: Task
    classes: list[str]
    thresholds: list[float]
    input: Size
    variant: str | None
    headline: str
    n_train: int
    unsure_below: float | None
    unfamiliar_above: float | None
    explains: bool
    neighbours: bool
    loaded_at: str
    stale: bool


class Models(BaseModel):
    models: list[Model]
    feedback: bool
    limits: dict[str, float]


class State(BaseModel):
    status: str
