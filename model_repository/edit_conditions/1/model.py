"""Owns Triton's side of edit_conditions: tensors in and out; edit_conditions/ does the work."""

from typing import Any

import numpy as np
import numpy.typing as npt
import triton_python_backend_utils as pb_utils

try:
    from model_kit.errors import error_of
except ModuleNotFoundError:
    raise ImportError(
        "the Python that runs Triton's models lacks the package model_kit; "
        "in ArtMancer's folder run: pip install --no-deps ."
    ) from None

from edit_conditions.debug import debug_info
from edit_conditions.fill import load_lama, telea
from edit_conditions.flows import build_conditions
from edit_conditions.plan import plan
from edit_conditions.regions import canvas_of, on_canvas
from edit_conditions.request import MAX_ELEMENTS, read_conditions_request
from edit_conditions.settings import ConditionSettings
from model_kit import heartbeat, internal
from model_kit.memory import Returns
from model_kit.parameters import Parameters
from model_kit.tensors import read_inputs, text_array


class TritonPythonModel:
    """Answers each request alone; one without IMAGE is refused at once, as a ping."""

    def initialize(self, args: dict[str, str]) -> None:
        """Read the parameters and load the fill; a bad parameter fails the load."""
        self._settings = ConditionSettings.from_parameters(Parameters.of_model(args))
        self._returns = Returns()
        self._held = 0
        lama_model = self._settings.lama_model
        self._inpaint = load_lama(lama_model) if lama_model else telea
        heartbeat.start(pb_utils.Logger.log_error)

    def execute(
        self, requests: list["pb_utils.InferenceRequest"]
    ) -> list["pb_utils.InferenceResponse"]:
        """Answer every request, in order, with its tensors or with one coded error."""
        responses = [self._respond(request) for request in requests]
        # Here, because only now nothing of a request is held any more.
        self._returns.freed(self._held)
        self._held = 0
        return responses

    def _respond(self, request: "pb_utils.InferenceRequest") -> "pb_utils.InferenceResponse":
        try:
            return pb_utils.InferenceResponse(self._condition(request))
        except Exception as exception:
            error = error_of(exception, pb_utils.Logger.log_error, "conditioning failed")
            code = getattr(pb_utils.TritonError, error.code.triton_name)
            return pb_utils.InferenceResponse([], pb_utils.TritonError(str(error), code))

    def _condition(self, request: "pb_utils.InferenceRequest") -> list["pb_utils.Tensor"]:
        internal.refuse_clients(request)
        edit = read_conditions_request(read_inputs(request, MAX_ELEMENTS), self._settings)
        shadow_hint = self._settings.shadow_hint
        self._held += edit.pixel_bytes
        planned = plan(edit, shadow_hint)
        conditions = [
            build_conditions(edit, scene, self._inpaint, shadow_hint) for scene in planned.scenes
        ]
        canvas = canvas_of(planned.regions)
        outputs: dict[str, npt.NDArray[Any]] = {
            "CONDITIONS": np.stack(
                [
                    np.stack([on_canvas(image, canvas) for image in of_region.images])
                    for of_region in conditions
                ]
            ),
            "PICTURE": planned.picture,
            "REGIONS": np.array([region.box for region in planned.regions], np.int32),
            "CONTENT": np.array([region.content for region in planned.regions], np.int32),
            "COMPOSITED": np.array([planned.composited]),
            "IN_PLACE": np.array([planned.in_place]),
            "SIZE": np.array(planned.size, np.int32),
            "PROMPT": text_array(edit.prompt),
            "TASK_TYPE": text_array(edit.task),
        }
        # Its pictures take longer than the rest, so they are made only for whoever asks.
        if "DEBUG_INFO" in request.requested_output_names():
            outputs["DEBUG_INFO"] = text_array(debug_info(edit, conditions))
        if planned.paste_masks is not None:
            outputs["PASTE_MASKS"] = np.concatenate([mask.ravel() for mask in planned.paste_masks])
        if planned.profile is not None:
            outputs["PROFILE"] = text_array(planned.profile)
        if planned.square is not None:
            outputs["SQUARE"] = np.array([planned.square], np.int32)
        return [pb_utils.Tensor(name, values) for name, values in outputs.items()]
