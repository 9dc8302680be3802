"""Owns the health check of the Triton container: it asks the models whether they answer.

Triton's own health stays good when the process behind a model is dead or stuck. Each Python model
that clients call answers an empty CANCEL at once, even while it works. smart_mask's answer says
whether fastsam has answered it.
"""

from __future__ import annotations

import argparse
import json
import sys
import urllib.error
import urllib.request

ASKED = ("image_edit", "smart_mask")
ANSWER_TIMEOUT_S = 5.0
# A proxy of the environment would take 127.0.0.1 for itself.
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def main(arguments: list[str] | None = None) -> int:
    """Return 0 when all models answer; print a line for each that does not."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="Triton's HTTP endpoint")
    url: str = parser.parse_args(arguments).url
    problems = [problem for model in ASKED if (problem := ask(url, model))]
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


def ask(url: str, model: str) -> str | None:
    """Return what is wrong with a model; None if nothing is.

    The answer is an event stream of one event, because image_edit is decoupled.
    """
    request = urllib.request.Request(
        f"{url}/v2/models/{model}/generate_stream",
        data=json.dumps({"CANCEL": ""}).encode(),
        headers={"Content-Type": "application/json"},
    )
    try:
        with DIRECT.open(request, timeout=ANSWER_TIMEOUT_S) as answer:
            text = answer.read().decode()
    except urllib.error.HTTPError as error:
        return f"{model}: {error}: {error.read().decode(errors='replace').strip()}"
    except (OSError, ValueError) as error:
        return f"{model}: {error}"
    # An error that comes after the first byte of an answer comes inside it.
    found = json.loads(text.removeprefix("data:")) if text.startswith("data:") else {}
    if "INFO" not in found:
        return f"{model}: {text.strip()}"
    if not json.loads(found["INFO"]).get("network_answers", True):
        return f"{model}: the mask network does not answer"
    return None


if __name__ == "__main__":
    sys.exit(main())
