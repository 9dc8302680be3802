"""Triton's edit_conditions: tensors in, tensors out; the modules beside it do the work."""

import json
import traceback
from pathlib import Path

import numpy as np
import triton_python_backend_utils as pb_utils

from edit_conditions.debug import debug_info
from edit_conditions.errors import InvalidInputError
from edit_conditions.fill import load_lama, telea
from edit_conditions.flows import build_conditions
from edit_conditions.request import MAX_ELEMENTS, Tensors, read_request
from edit_conditions.settings import ConditionSettings


class TritonPythonModel:
    """Answers each request alone; a request without IMAGE is refused at once, so it can ping."""

    def initialize(self, args: dict[str, str]) -> None:
        """Reads the parameters once and loads the fill; a bad parameter fails the load."""
        parameters = json.loads(args["model_config"])["parameters"]
        self._settings = ConditionSettings.from_parameters(
            {key: value["string_value"] for key, value in parameters.items()},
            Path(args["model_repository"]),
        )
        lama_model = self._settings.lama_model
        self._inpaint = load_lama(lama_model) if lama_model else telea

    def execute(
        self, requests: list["pb_utils.InferenceRequest"]
    ) -> list["pb_utils.InferenceResponse"]:
        """Answers every request, in order, with its tensors or with one coded error."""
        return [self._respond(request) for request in requests]

    def _respond(self, request: "pb_utils.InferenceRequest") -> "pb_utils.InferenceResponse":
        try:
            return pb_utils.InferenceResponse(self._condition(request))
        except InvalidInputError as error:
            text, code = f"[INVALID_ARGUMENT] {error}", pb_utils.TritonError.INVALID_ARG
        except Exception:
            pb_utils.Logger.log_error(traceback.format_exc())
            text, code = "[INTERNAL] conditioning failed", pb_utils.TritonError.INTERNAL
        return pb_utils.InferenceResponse([], pb_utils.TritonError(text, code))

    def _condition(self, request: "pb_utils.InferenceRequest") -> list["pb_utils.Tensor"]:
        edit = read_request(_inputs(request), self._settings)
        conditions = build_conditions(edit, self._inpaint, self._settings.shadow_hint)
        outputs = [
            pb_utils.Tensor("CONDITIONS", np.stack(conditions.images)),
            pb_utils.Tensor("INPUT", conditions.source),
            _text_tensor("PROMPT", edit.prompt),
            _text_tensor("TASK_TYPE", edit.task),
            _text_tensor("DEBUG_INFO", debug_info(edit, conditions)),
        ]
        if conditions.composite_mask is not None:
            outputs.append(pb_utils.Tensor("COMPOSITE_MASK", conditions.composite_mask))
        return outputs


def _inputs(request: "pb_utils.InferenceRequest") -> Tensors:
    """The inputs as lists.

    Raises:
        InvalidInputError: one has too many elements; making lists of millions would stop all
            other clients.
    """
    arrays = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
    for name, array in arrays.items():
        if array.size > MAX_ELEMENTS:
            raise InvalidInputError(name, f"{array.size} elements, at most {MAX_ELEMENTS}")
    return {name: array.tolist() for name, array in arrays.items()}


def _text_tensor(name: str, text: str) -> "pb_utils.Tensor":
    return pb_utils.Tensor(name, np.array([text.encode()], dtype=np.object_))
