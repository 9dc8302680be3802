"""Owns Triton's side of edit_conditions: tensors in and out; edit_conditions/ does the work."""

import numpy as np
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
from edit_conditions.request import MAX_ELEMENTS, read_request
from edit_conditions.settings import ConditionSettings
from model_kit.parameters import Parameters
from model_kit.tensors import read_inputs, text_array


class TritonPythonModel:
    """Answers each request alone; one without IMAGE is refused at once, as a ping."""

    def initialize(self, args: dict[str, str]) -> None:
        """Read the parameters and load the fill; a bad parameter fails the load."""
        self._settings = ConditionSettings.from_parameters(Parameters.of_model(args))
        lama_model = self._settings.lama_model
        self._inpaint = load_lama(lama_model) if lama_model else telea

    def execute(
        self, requests: list["pb_utils.InferenceRequest"]
    ) -> list["pb_utils.InferenceResponse"]:
        """Answer every request, in order, with its tensors or with one coded error."""
        return [self._respond(request) for request in requests]

    def _respond(self, request: "pb_utils.InferenceRequest") -> "pb_utils.InferenceResponse":
        try:
            return pb_utils.InferenceResponse(self._condition(request))
        except Exception as exception:
            error = error_of(exception, pb_utils.Logger.log_error, "conditioning failed")
            code = getattr(pb_utils.TritonError, error.code.triton_name)
            return pb_utils.InferenceResponse([], pb_utils.TritonError(str(error), code))

    def _condition(self, request: "pb_utils.InferenceRequest") -> list["pb_utils.Tensor"]:
        edit = read_request(read_inputs(request, MAX_ELEMENTS), self._settings)
        conditions = build_conditions(edit, self._inpaint, self._settings.shadow_hint)
        outputs = [
            pb_utils.Tensor("CONDITIONS", np.stack(conditions.images)),
            pb_utils.Tensor("INPUT", conditions.source),
            pb_utils.Tensor("PROMPT", text_array(edit.prompt)),
            pb_utils.Tensor("TASK_TYPE", text_array(edit.task)),
            pb_utils.Tensor("DEBUG_INFO", text_array(debug_info(edit, conditions))),
        ]
        if conditions.composite_mask is not None:
            outputs.append(pb_utils.Tensor("COMPOSITE_MASK", conditions.composite_mask))
        return outputs
