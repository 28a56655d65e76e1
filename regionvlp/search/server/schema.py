"""What the JSON interface gives, for its OpenAPI description. Later fields may come; none of these will go."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

EXAMPLE: dict[str, Any] = {
    "query": "a dog rides a skateboard",
    "present": 0.99,
    "results": [
        {
            "video_id": "park/dog.mp4",
            "path": "/videos/park/dog.mp4",
            "start": 4.0,
            "end": 13.2,
            "score": 0.592,
            "words": [
                {
                    "word": "dog",
                    "boxes": [
                        {
                            "time": 8.8,
                            "box": [176.6, 329.3, 450.0, 728.8],
                            "weight": 1.048,
                            "label": "dog",
                            "score_without": 0.31,
                            "rank_without": 37,
                            "matters": True,
                            "region": 16,
                        }
                    ],
                    "score_without": 0.31,
                    "rank_without": 37,
                    "matters": True,
                }
            ],
            "shares": {},
            "copies": [],
            "clip_id": "park/dog.mp4@8s",
            "media": "/media?clip=park%2Fdog.mp4%408s#t=4,13.2",
            "thumbnail": "/thumbnail?clip=park%2Fdog.mp4%408s",
        }
    ],
    "notes": [],
    "certificate": "held",
}


class _Part(BaseModel):
    model_config = ConfigDict(extra="allow")


class BoxModel(_Part):
    """A region that answers a word."""

    time: float = Field(description="Of its frame, seconds from the file's first frame.")
    box: tuple[float, float, float, float] = Field(description="x1 y1 x2 y2 in pixels of the frame.")
    weight: float = Field(description="How much it answers; what that means is the encoder's.")
    label: str = Field(description="What the detector calls it; may be empty.")
    score_without: float | None = Field(description="Score of the result without this box, where that is known.")
    rank_without: int | None = Field(description="Rank of the result without this box, where that is known.")
    matters: bool | None = Field(description="Whether the result loses rank without this box.")
    region: int = Field(description="Its number among the regions of the clip.")


class WordModel(_Part):
    """A word of the query with the regions that answer it, at most one a frame."""

    word: str
    boxes: list[BoxModel]
    score_without: float | None = Field(description="Score of the result without all of these boxes at once.")
    rank_without: int | None = Field(description="Rank of the result without all of these boxes at once.")
    matters: bool | None = Field(description="Whether the result loses rank without all of these boxes at once.")


class CopyModel(_Part):
    """Another moment that looks the same."""

    video_id: str
    path: str
    start: float
    end: float


class ResultModel(_Part):
    """A moment."""

    video_id: str = Field(description="The file as people name it.")
    path: str = Field(description="Where the file lies on the server's machine; empty where that is not known.")
    start: float = Field(description="Seconds from the file's first frame.")
    end: float = Field(description="Equal to start for a picture.")
    score: float = Field(description="Never rising from one result to the next; comparable within one search only.")
    words: list[WordModel]
    shares: dict[str, float] = Field(description="What each encoder gave to the score, where there are several.")
    copies: list[CopyModel]
    clip_id: str
    media: str = Field(description="Address of the file, from the start of the moment to its end.")
    thumbnail: str = Field(description="Address of a small JPEG.")


class AnswersModel(_Part):
    """A finished search, the best result first."""

    model_config = ConfigDict(extra="allow", json_schema_extra={"examples": [EXAMPLE]})

    query: str
    present: float = Field(description="The probability that any answer exists. Results are given whatever it is.")
    results: list[ResultModel]
    notes: list[str]
    certificate: str = Field(description="How scores and ranks without boxes were worked out: held, reencode, none.")


class ErrorModel(BaseModel):
    """What is wrong, and what to do about it."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"error": "the query is empty", "hint": "say what"}]})

    error: str
    hint: str
