import pytest

from edit_conditions.prompt import compose_prompt
from edit_conditions.task import Task


@pytest.mark.parametrize("task", Task)
def test_a_prompt_alone_stays_as_it_was_sent(task: Task) -> None:
    assert compose_prompt(task, "  a Cat | dog\n") == "  a Cat | dog\n"


@pytest.mark.parametrize("prompt", ["", " ", "\n\t"])
def test_a_blank_prompt_is_the_task_in_words(prompt: str) -> None:
    assert compose_prompt(Task.REMOVAL, prompt) == "remove object"
    assert compose_prompt(Task.INSERTION, prompt) == "insert the object"
    assert compose_prompt(Task.WHITE_BALANCE, prompt) == "correct the white balance"


@pytest.mark.parametrize(
    ("angle", "background", "composed"),
    [
        ("wide-angle", "", "a cup | 广角镜头"),
        (" Top-Down ", " ", "a cup | 俯视"),
        ("side-view", "marble-surface", "a cup | 侧视 | marble surface"),
        ("front-view", "soft-gray-studio", "a cup | 正视 | soft gray studio"),
        ("close-up", "white-background", "a cup | 特写 | white background"),
        ("low-angle", "black-background", "a cup | 低角度 | black background"),
        ("high-angle", "wood-texture", "a cup | 高角度 | wood texture"),
        ("bird-eye", "concrete-wall", "a cup | 鸟瞰 | concrete wall"),
        ("EYE-LEVEL", "Outdoor-Natural", "a cup | 平视 | natural outdoor setting"),
        ("dutch-angle", "indoor-studio", "a cup | 倾斜角度 | indoor studio lighting"),
        ("", "minimalist", "a cup | minimal clean background"),
        ("", "textured", "a cup | textured background"),
        ("From Below ", " On the Moon", "a cup | From Below | On the Moon"),
    ],
)
@pytest.mark.parametrize("task", [Task.INSERTION, Task.REMOVAL])
def test_angle_and_background_are_composed(
    task: Task, angle: str, background: str, composed: str
) -> None:
    assert compose_prompt(task, " a cup ", angle, background) == composed


def test_white_balance_takes_no_angle_and_no_background() -> None:
    assert compose_prompt(Task.WHITE_BALANCE, " warm ", "top-down", "textured") == " warm "


def test_empty_parts_are_dropped() -> None:
    assert compose_prompt(Task.INSERTION, " ", "top-down") == "俯视"
    assert compose_prompt(Task.REMOVAL, " ", "top-down") == "remove object | 俯视"
