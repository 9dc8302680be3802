"""Owns composing the prompt for the text encoder: a blank one, angle and background."""

from edit_conditions.task import Task

# What a blank prompt means.
WORDS = {
    Task.REMOVAL: "remove object",
    Task.INSERTION: "insert the object",
    Task.WHITE_BALANCE: "correct the white balance",
}

# The customary Chinese camera terms, which the model knows better than English ones.
ANGLES = {
    "wide-angle": "广角镜头",
    "top-down": "俯视",
    "side-view": "侧视",
    "front-view": "正视",
    "close-up": "特写",
    "low-angle": "低角度",
    "high-angle": "高角度",
    "bird-eye": "鸟瞰",
    "eye-level": "平视",
    "dutch-angle": "倾斜角度",
}

BACKGROUNDS = {
    "marble-surface": "marble surface",
    "soft-gray-studio": "soft gray studio",
    "white-background": "white background",
    "black-background": "black background",
    "wood-texture": "wood texture",
    "concrete-wall": "concrete wall",
    "outdoor-natural": "natural outdoor setting",
    "indoor-studio": "indoor studio lighting",
    "minimalist": "minimal clean background",
    "textured": "textured background",
}


def compose_prompt(task: Task, prompt: str, angle: str = "", background: str = "") -> str:
    """Compose one prompt from what the user wrote and chose.

    Angle and background count for insertion and removal only. Without them the prompt stays as
    the client sent it. With them, ` | ` joins the trimmed parts that are not empty.

    Args:
        task: decides what a blank prompt becomes, see WORDS. An insertion's angle or background
            may stand alone.
        prompt: the user's text.
        angle: a key of ANGLES in upper or lower case, or free text, which stays as it is.
        background: a key of BACKGROUNDS in upper or lower case, or free text, which stays as it
            is.
    """
    if task is Task.REMOVAL and not prompt.strip():
        prompt = WORDS[task]
    if task is not Task.WHITE_BALANCE and (angle.strip() or background.strip()):
        parts = (prompt.strip(), _term(ANGLES, angle), _term(BACKGROUNDS, background))
        prompt = " | ".join(part for part in parts if part)
    return prompt if prompt.strip() else WORDS[task]


def _term(terms: dict[str, str], label: str) -> str:
    label = label.strip()
    return terms.get(label.lower(), label)
