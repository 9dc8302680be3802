"""A download that fails says why in one line, and only large files have a hash to compare."""

from pathlib import Path
from typing import Any

import httpx
import pytest

from export.errors import ExportError
from export.qwen import hub as qwen_hub


@pytest.mark.parametrize("failure", [httpx.ReadTimeout("timed out"), RuntimeError("xet: no")])
def test_whatever_breaks_a_download_off_is_said_in_one_line(
    failure: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise failure

    monkeypatch.setattr(qwen_hub, "snapshot_download", fail)
    monkeypatch.setattr(qwen_hub, "hf_hub_download", fail)
    with pytest.raises(ExportError, match=f"^acme/base at main: {failure}$"):
        qwen_hub.fetch_pipeline("acme/base", "main")
    with pytest.raises(ExportError, match=f"^acme/one:a.safetensors: {failure}$"):
        qwen_hub.fetch_file("acme/one:a.safetensors")


def test_only_large_files_have_a_hash_stated_by_the_hub(tmp_path: Path) -> None:
    assert qwen_hub.expected_sha256(tmp_path / ("a" * 64)) == "a" * 64
    assert qwen_hub.expected_sha256(tmp_path / ("a" * 40)) is None
