import re
import time
from pathlib import Path

import pytest

from image_edit import loading as edit_loading
from image_edit.loading import FILE_VARIABLE, loading


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "loading"
    monkeypatch.setenv(FILE_VARIABLE, str(file))
    return file


def test_the_file_holds_the_stage_that_goes_on_and_is_gone_at_the_end(file: Path) -> None:
    lines: list[str] = []
    with loading(lines.append) as on_stage:
        assert not file.exists()
        for stage in ("loading the pipeline", "warming up"):
            on_stage(stage)
            assert file.read_text() == f"{stage}\n"
            assert re.fullmatch(rf"image_edit: \d+\.\d s, {stage}", lines[-1])
    assert list(file.parent.iterdir()) == []


def test_a_load_that_fails_leaves_no_file(file: Path) -> None:
    def load() -> None:
        with loading(lambda _: None) as on_stage:
            on_stage("checking the bundle")
            raise ValueError("no bundle")

    with pytest.raises(ValueError, match="no bundle"):
        load()
    assert list(file.parent.iterdir()) == []


def test_a_file_that_a_killed_load_has_left_is_replaced(file: Path) -> None:
    file.write_text("warming up\n")
    with loading(lambda _: None) as on_stage:
        on_stage("checking the bundle")
        assert file.read_text() == "checking the bundle\n"


def test_the_file_is_written_again_and_again(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edit_loading, "INTERVAL_S", 0.01)
    with loading(lambda _: None) as on_stage:
        on_stage("loading the pipeline")
        file.unlink()
        deadline = time.monotonic() + 60
        while not file.exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert file.read_text() == "loading the pipeline\n"
    assert list(file.parent.iterdir()) == []


def test_a_file_that_cannot_be_written_is_logged_and_harms_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(FILE_VARIABLE, str(tmp_path / "nowhere" / "loading"))
    lines: list[str] = []
    with loading(lines.append) as on_stage:
        on_stage("checking the bundle")
        on_stage("loading the pipeline")
    assert "checking the bundle" in lines.pop(0)
    assert "loading the pipeline" in lines.pop()
    assert lines == [
        f"image_edit: cannot write {tmp_path}/nowhere/loading: No such file or directory"
    ]


def test_without_the_variable_it_only_logs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(FILE_VARIABLE, raising=False)
    lines: list[str] = []
    with loading(lines.append) as on_stage:
        on_stage("checking the bundle")
    assert len(lines) == 1


def test_a_folder_in_the_file_s_place_is_left_alone(file: Path) -> None:
    file.mkdir()
    lines: list[str] = []
    with loading(lines.append) as on_stage:
        on_stage("checking the bundle")
    assert "cannot write" in lines[1]
    assert list(file.parent.iterdir()) == [file]
