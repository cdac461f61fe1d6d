"""What requests and answers look like. Pydantic reads requests strictly and describes both in the OpenAPI document."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    model_validator,
)

from gru4rec.serve.questions import Answer, Asked, SimilarItems
from gru4rec.serve.settings import Limits

_ID_LENGTH = 512
_VALUES = 10_000
_MAX_SESSION_ITEMS = 100_000


class _Core:
    """Adds settings to a type that pydantic's core knows and pydantic's own types have no hashable word for.

    Args:
        settings: Of the core's schema.
    """

    def __init__(self, **settings: Any) -> None:
        self._settings = settings

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> Any:
        """Return the schema of the type with the settings."""
        return {**handler(source), **self._settings}


_FIRST_ERROR = _Core(fail_fast=True)
"""A body of a megabyte can hold half a million errors, which take seconds to write down."""


def _or_else(message: str) -> _Core:
    """Return what makes a union say one thing of a value that is none of its kinds."""
    return _Core(custom_error_type="wrong_kind", custom_error_message=message)


_TEXT = f"text of up to {_ID_LENGTH} characters"
Integer = Annotated[StrictInt, Field(ge=-(2**63), le=2**63 - 1)]
Text = Annotated[StrictStr, Field(max_length=_ID_LENGTH)]
ItemId = Annotated[Integer | Text, _or_else(f"an item id is an integer of 64 bits, or {_TEXT}")]
Value = Annotated[
    Integer | Text | StrictBool | Annotated[StrictFloat, Field(allow_inf_nan=False)],
    _or_else(f"a value is a number, true, false, or {_TEXT}"),
]
Session = Annotated[list[ItemId], Field(max_length=_MAX_SESSION_ITEMS), _FIRST_ERROR]
Ids = Annotated[list[ItemId], Field(max_length=_VALUES), _FIRST_ERROR]
ModelName = Literal["main", "compare"]


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class ListOptions(_Request):
    """What a list is to hold."""

    k: Annotated[StrictInt, Field(ge=1, description="List length; fewer items come where there are fewer.")] = 20
    exclude: Annotated[Ids, Field(description="Ids that may not be recommended.")] = []
    exclude_seen: Annotated[StrictBool, Field(description="Leave out the items of the session.")] = False
    exclude_current: Annotated[StrictBool, Field(description="Leave out the newest item of the session.")] = False
    allow: Annotated[Ids | None, Field(description="The only ids that may be recommended.")] = None
    where: Annotated[
        dict[str, Annotated[list[Value], Field(max_length=_VALUES), _FIRST_ERROR]],
        Field(max_length=20, description="Only items with one of the values in each named column of the catalogue."),
        _FIRST_ERROR,
    ] = {}
    details: Annotated[StrictBool, Field(description="Give titles and pictures with the items.")] = False

    def asked(self) -> Asked:
        """Return the same for the service."""
        return Asked(
            k=self.k,
            exclude=self.exclude,
            exclude_seen=self.exclude_seen,
            exclude_current=self.exclude_current,
            allow=self.allow,
            where=self.where,
        )


class RecommendRequest(ListOptions):
    """One session, or several that get a list each."""

    session: Annotated[Session | None, Field(description="Item ids clicked, oldest first; may be empty.")] = None
    sessions: Annotated[
        Annotated[list[Session], Field(min_length=1), _FIRST_ERROR] | None, Field(description="Several sessions.")
    ] = None
    model: Annotated[ModelName, Field(description="Which model answers.")] = "main"

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if (self.session is None) == (self.sessions is None):
            raise ValueError("give either session or sessions")
        return self


class ClickRequest(ListOptions):
    """A click of a session that the service keeps."""

    item: Annotated[ItemId, Field(description="The item that was clicked.")]


class ListedItem(BaseModel):
    """An item in a list."""

    id: int | str
    score: float
    title: str | None = None
    picture: str | None = None


class RecommendedList(BaseModel):
    """A list, best first."""

    items: list[ListedItem]
    unknown: Annotated[list[int | str], Field(description="Clicked ids that the model does not know: skipped.")]
    popular: Annotated[bool, Field(description="No clicked item was known: these are the items clicked most.")]


class RecommendResponse(BaseModel):
    """The list of one session, or the lists of several."""

    items: list[ListedItem] | None = None
    unknown: list[int | str] | None = None
    popular: bool | None = None
    lists: list[RecommendedList] | None = None
    model: str
    model_version: str


class ClickResponse(RecommendedList):
    """The list after a click."""

    model: str
    model_version: str
    n_clicks: int
    degraded: Annotated[bool, Field(description="The session store was lost: the session's past may be missing.")]


class SessionResponse(BaseModel):
    """A session as it is kept."""

    session: Annotated[list[int | str], Field(description="Ids of the newest clicks, oldest first.")]
    n_clicks: int
    model_version: str


class SimilarResponse(BaseModel):
    """Items like one."""

    items: list[ListedItem]
    by: Literal["cosine", "scores"]
    model: str
    model_version: str


class FoundItem(BaseModel):
    """An item that was looked for."""

    id: int | str
    title: str | None
    picture: str | None
    n_events: Annotated[int, Field(description="Its clicks in training.")]


class FoundItems(BaseModel):
    """Items whose title or id fits, clicked most first."""

    items: list[FoundItem]


class ModelsResponse(BaseModel):
    """The models and limits of the service."""

    models: list[dict[str, Any]]
    limits: dict[str, float]
    catalogue: dict[str, Any] | None
    keeps_sessions: bool


class Problem(BaseModel):
    """What was wrong."""

    code: str
    message: str


class ErrorResponse(BaseModel):
    """An error."""

    error: Problem


def too_much(request: RecommendRequest, limits: Limits) -> str | None:
    """Return what in a request is above the service's limits, or None."""
    sessions = [request.session] if request.session is not None else request.sessions or []
    if len(sessions) > limits.sessions_a_request:
        return f"sessions: {len(sessions)} of them, and a request may have {limits.sessions_a_request}. Send several"
    longest = max(map(len, sessions))
    if longest > limits.session_items:
        return f"session: {longest} clicks, and it may have {limits.session_items}. Send the newest ones"
    return too_long(request, limits)


def too_long(request: ListOptions, limits: Limits) -> str | None:
    """Return what is wrong with a list's length, or None."""
    return f"k: {request.k} is above {limits.k}. Ask for fewer" if request.k > limits.k else None


def items_of(answer: Answer | SimilarItems, *, details: bool) -> list[dict[str, Any]]:
    """Return a list's items as they are sent."""
    items: list[dict[str, Any]] = [
        {"id": item_id, "score": score} for item_id, score in zip(answer.item_ids, answer.scores, strict=True)
    ]
    if details:
        known = answer.model.details
        for item, item_idx in zip(items, answer.model.items.indices_of(answer.item_ids).tolist(), strict=True):
            item["title"], item["picture"] = known.title(item_idx), known.picture(item_idx)
    return items


def list_of(answer: Answer, *, details: bool) -> dict[str, Any]:
    """Return a list as it is sent."""
    return {"items": items_of(answer, details=details), "unknown": answer.unknown, "popular": answer.popular}
