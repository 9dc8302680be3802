"""Owns the JSON of requests for masks and of their answers, as documented at /docs."""

from typing import Annotated, Any, Literal, NoReturn, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from frontend.domain.masks import MAX_ID_CHARS, MaskPrompts
from frontend.http.schemas.fields import CROSS_FIELD, EXAMPLE_IMAGE, EXAMPLE_MASK, WHOLE
from frontend.http.schemas.unknown import JsonRequest, Warnings

MAX_POINTS = 256
MAX_BORDER = 50
# Pixels: far beyond any picture, and still exact in the model's FP32.
MAX_COORDINATE = 2**24

NO_IMAGE = "Either 'image' or 'image_id' must be provided"
# The first half is the contract's; it leaves a prompt out.
NO_PROMPT = (
    "Either 'points', 'bbox', or 'auto_detect=True' must be provided, or 'mask', a rough mask"
)

Coordinate = Annotated[float, Field(ge=-MAX_COORDINATE, le=MAX_COORDINATE)]
Border = Annotated[int, Field(ge=-MAX_BORDER, le=MAX_BORDER), WHOLE]
PointLabel = Annotated[int, Field(ge=0, le=1), WHOLE]
Base64 = Annotated[str, Field(description="base64 or data URL of an image file")]


def _no_dots(request_id: str | None) -> str | None:
    # Clients and proxies drop such a segment of a path, so no cancel could name it.
    if request_id in (".", ".."):
        raise ValueError("must not be . or ..")
    return request_id


class _Request(JsonRequest):
    """Unknown fields are ignored; an empty string or list counts as absent."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False, frozen=True)

    image: Annotated[
        str | None,
        Field(description="base64 or data URL of a PNG, JPEG, WebP, BMP, GIF or TIFF"),
    ] = None
    image_id: Annotated[
        str | None,
        Field(
            max_length=MAX_ID_CHARS,
            description="of an earlier answer; saves sending its image again",
        ),
    ] = None
    border_adjustment: Annotated[
        Border | None,
        Field(
            description="grows the mask (above 0) or shrinks it, by half as many pixels; null: 0;"
            " for auto_detect 0 means 5"
        ),
    ] = 0
    use_blur: Annotated[bool | None, Field(description="softer edges")] = False
    request_id: Annotated[
        str | None,
        Field(
            pattern=r"^[A-Za-z0-9._~:-]*$",
            max_length=MAX_ID_CHARS,
            description="names the request for a cancel; not . or ..; null: one is made",
        ),
        AfterValidator(_no_dots),
    ] = None

    @property
    def finishing(self) -> dict[str, Any]:
        """The fields of MaskPrompts that shape the mask, as far as the client has sent them."""
        return self.model_dump(include={"border_adjustment", "use_blur"}, exclude_unset=True)

    @model_validator(mode="after")
    def _require_an_image(self) -> Self:
        if not self.image and not self.image_id:
            raise PydanticCustomError(CROSS_FIELD, NO_IMAGE)
        return self


class DetectRequest(_Request):
    """The most salient object of a picture is wanted."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"image": EXAMPLE_IMAGE}]})

    @property
    def prompts(self) -> MaskPrompts:
        """What the model is asked to find."""
        return MaskPrompts(auto_detect=True, **self.finishing)


class SmartMaskRequest(_Request):
    """One object's mask is wanted.

    Of several prompts the first counts, in the order points, bbox, mask, auto_detect.
    Coordinates are pixels of the picture as it is shown, upright.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"image": EXAMPLE_IMAGE, "points": [[48, 53]]},
                {"image": EXAMPLE_IMAGE, "bbox": [21, 26, 75, 80], "border_adjustment": 2},
                {
                    "image": EXAMPLE_IMAGE,
                    "points": [[48, 53], [10, 10]],
                    "point_labels": [1, 0],
                    "request_id": "click-1",
                },
                {"image": EXAMPLE_IMAGE, "auto_detect": True, "use_blur": True},
            ]
        }
    )

    bbox: Annotated[
        list[Coordinate] | None, Field(description="x0, y0, x1, y1 with x0 < x1 and y0 < y1")
    ] = None
    points: Annotated[
        list[Annotated[list[Coordinate], Field(min_length=2, max_length=2)]] | None,
        Field(max_length=MAX_POINTS, description="x, y of each"),
    ] = None
    point_labels: Annotated[
        list[PointLabel] | None,
        Field(
            max_length=MAX_POINTS,
            description="of each point, 1 inside the object, 0 outside; null: all inside",
        ),
    ] = None
    auto_detect: Annotated[bool | None, Field(description="find the most salient object")] = False
    mask: Annotated[
        str | None,
        Field(description="base64 or data URL of a rough mask, white on the object"),
    ] = None
    model_type: Annotated[
        Literal["segmentation", "fastsam", "birefnet"] | None,
        Field(description="fastsam is the same as segmentation; birefnet is not built"),
    ] = "segmentation"

    @model_validator(mode="after")
    def _require_prompts_that_make_sense(self) -> Self:
        if self.bbox and not self._has_a_sensible_bbox():
            _refuse("bbox: must be [x0, y0, x1, y1] with x0 < x1 and y0 < y1")
        if labels := self.point_labels:
            if len(labels) != (count := len(self.points or ())):
                _refuse(f"point_labels: {len(labels)} labels for {count} points")
            if 1 not in labels:
                _refuse("point_labels: at least one point must be inside the object")
        if not (self.points or self.bbox or self.mask or self.auto_detect):
            _refuse(NO_PROMPT)
        return self

    def _has_a_sensible_bbox(self) -> bool:
        match self.bbox:
            case [left, top, right, bottom]:
                # Beside points the box is ignored, and around a straight stroke it has no area.
                return bool(self.points) or (left < right and top < bottom)
        return False

    @property
    def prompts(self) -> MaskPrompts:
        """What the model is asked to find, without the rough mask."""
        return MaskPrompts(
            points=tuple((x, y) for x, y in self.points or ()),
            point_labels=tuple(self.point_labels or ()),
            bbox=tuple(self.bbox) if self.bbox and not self.points else None,
            **self.model_dump(include={"auto_detect"}, exclude_unset=True),
            **self.finishing,
        )


class SmartMaskAnswer(BaseModel):
    """A mask."""

    success: Literal[True] = True
    mask_base64: Annotated[str, Field(description="base64 PNG, grey, of the upright image's size")]
    image_id: Annotated[str, Field(description="for further requests on the same image")]
    request_id: str
    error: None = None
    score: Annotated[float, Field(description="the network's confidence in the object, 0 to 1")]
    cached: Annotated[bool, Field(description="whether the image was known already")]
    points_missed: Annotated[
        list[int],
        Field(
            description="positions in points, from 0, of those inside the object that the mask "
            "does not hold; one mask is one object"
        ),
    ]
    timings: Annotated[dict[str, float], Field(description="the model's seconds by stage")]
    warnings: Warnings


class MaskCancelled(BaseModel):
    """A cancel was noted."""

    success: bool = True
    message: str
    request_id: str


class DetectAnswer(BaseModel):
    """A mask, or why there is none."""

    success: bool
    mask: Annotated[str | None, Field(description="base64 PNG, grey")] = None
    error: str | None = None
    warnings: Warnings


class ExtractRequest(JsonRequest):
    """An object is to be cut out."""

    model_config = ConfigDict(
        strict=True,
        frozen=True,
        json_schema_extra={"examples": [{"image": EXAMPLE_IMAGE, "mask": EXAMPLE_MASK}]},
    )

    image: Base64
    mask: Annotated[Base64, Field(description="white on the object; stretched to the image")]


class ExtractAnswer(BaseModel):
    """An object on transparent ground."""

    success: Literal[True] = True
    extracted_image: Annotated[str, Field(description="base64 PNG, RGBA, of the image's size")]
    error: None = None
    warnings: Warnings


def _refuse(sentence: str) -> NoReturn:
    raise PydanticCustomError(CROSS_FIELD, sentence)
