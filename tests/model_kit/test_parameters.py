import json
from pathlib import Path

import pytest

from model_kit.parameters import Parameters

FOLDER = Path("/models/one")


def of(**values: str) -> Parameters:
    return Parameters(values, FOLDER)


def test_what_triton_passes_is_read() -> None:
    config = {"name": "one", "parameters": {"A": {"string_value": "x"}}}
    args = {"model_config": json.dumps(config), "model_repository": str(FOLDER)}
    parameters = Parameters.of_model(args)
    assert parameters.text("A") == "x"
    assert parameters.path("A") == FOLDER / "x"


def test_good_values() -> None:
    assert of(A="text").text("A") == "text"
    assert of(A="b").choice("A", ("a", "b")) == "b"
    assert [of(A=text).flag("A") for text in ("true", "false")] == [True, False]
    assert of(A="12").positive("A") == 12
    assert [of(A=text).number("A", 0, 1) for text in ("0", "0.5", "1")] == [0, 0.5, 1]
    assert of(A="0.25").fraction("A") == 0.25
    assert of(A="../two").path("A") == Path("/models/two")
    assert of(A="/else").path("A") == Path("/else")


READERS = {
    "text": lambda parameters: parameters.text("A"),
    "choice": lambda parameters: parameters.choice("A", ("a", "b")),
    "flag": lambda parameters: parameters.flag("A"),
    "positive": lambda parameters: parameters.positive("A"),
    "number": lambda parameters: parameters.number("A", 0.5, 2),
    "fraction": lambda parameters: parameters.fraction("A"),
    "path": lambda parameters: parameters.path("A"),
    "optional_file": lambda parameters: parameters.optional_file("A"),
}


@pytest.mark.parametrize("reader", READERS)
def test_a_missing_parameter_is_named(reader: str) -> None:
    with pytest.raises(ValueError, match=r"^parameter A is missing$"):
        READERS[reader](of(B="x"))


@pytest.mark.parametrize("reader", [name for name in READERS if name != "optional_file"])
def test_an_empty_parameter_is_missing(reader: str) -> None:
    with pytest.raises(ValueError, match=r"^parameter A is missing$"):
        READERS[reader](of(A=""))


@pytest.mark.parametrize(
    ("reader", "text", "said"),
    [
        ("choice", "c", "must be a or b, not 'c'"),
        ("flag", "True", "must be true or false, not 'True'"),
        ("flag", "1", "must be true or false, not '1'"),
        ("positive", "0", "must be a whole number above 0, not '0'"),
        ("positive", "-1", "must be a whole number above 0, not '-1'"),
        ("positive", "1e6", "must be a whole number above 0, not '1e6'"),
        ("positive", "²", "must be a whole number above 0, not '²'"),
        ("number", "0.4", "must be a number of 0.5 to 2, not '0.4'"),
        ("number", "2.1", "must be a number of 0.5 to 2, not '2.1'"),
        ("number", "nan", "must be a number of 0.5 to 2, not 'nan'"),
        ("number", "much", "must be a number of 0.5 to 2, not 'much'"),
        ("fraction", "0", "must be above 0 and below 1, not '0'"),
        ("fraction", "1", "must be above 0 and below 1, not '1'"),
        ("fraction", "nan", "must be above 0 and below 1, not 'nan'"),
        ("fraction", "half", "must be above 0 and below 1, not 'half'"),
    ],
)
def test_a_bad_value_is_named(reader: str, text: str, said: str) -> None:
    with pytest.raises(ValueError, match=f"^parameter A {said}$"):
        READERS[reader](of(A=text))


def test_an_optional_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    values = {"HERE": "file", "NONE": "", "ABSENT": "absent", "FOLDER": "."}
    parameters = Parameters(values, tmp_path)
    assert parameters.optional_file("HERE") == tmp_path / "file"
    assert parameters.optional_file("NONE") is None
    for key in ("ABSENT", "FOLDER"):
        with pytest.raises(ValueError, match=f"parameter {key}: there is no file {tmp_path}"):
            parameters.optional_file(key)
