"""The Dockerfiles as far as they can be judged without a Docker engine."""

from __future__ import annotations

import fnmatch
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

import gpu_check
import tensorrt_requirement

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
DOCKERFILES = sorted((ROOT / "docker").glob("*.Dockerfile"))
COPY = re.compile(r"^COPY (?!--from)(.+) \S+$", re.MULTILINE)


def is_ignored(path: str) -> bool:
    """Return whether .dockerignore keeps a file out: its last line that matches decides."""
    ignored = False
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        if not line or line.startswith("#"):
            continue
        pattern = line.removeprefix("!")
        parents = [path, *(str(parent) for parent in Path(path).parents)]
        # A folder's pattern takes all that is in it; * does not cross a slash, ** does.
        expression = "(.*/)?".join(
            fnmatch.translate(part).removesuffix("\\Z").removesuffix("\\z").replace(".*", "[^/]*")
            for part in pattern.split("**/")
        )
        if any(re.fullmatch(expression, parent) for parent in parents):
            ignored = not line.startswith("!")
    return ignored


def instruction(dockerfile: Path, name: str) -> list[str]:
    """Return an instruction's arguments, each time it stands there."""
    text = dockerfile.read_text().replace("\\\n", " ")
    return re.findall(rf"^{name} +(.+)$", text, re.MULTILINE)


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.stem)
def test_hadolint_finds_nothing(dockerfile: Path) -> None:
    hadolint = Path(sys.prefix, "bin", "hadolint")
    done = subprocess.run([hadolint, dockerfile], capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("", 0)


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.stem)
def test_all_that_is_copied_is_there_and_reaches_the_builder(dockerfile: Path) -> None:
    sources = [source for line in COPY.findall(dockerfile.read_text()) for source in line.split()]
    assert len(sources) >= 4
    for source in sources:
        assert (ROOT / source).exists(), source
        assert not is_ignored(source), source


def test_nothing_else_reaches_the_builder() -> None:
    for kept_out in (
        ".git/config",
        "bundles/demo/manifest.json",
        ".env",
        "tests/conftest.py",
        "frontend/__pycache__/app.cpython-312.pyc",
        "model_repository/fastsam/1/model.plan",
    ):
        assert is_ignored(kept_out), kept_out
    assert not is_ignored("model_repository/fastsam/1/model.py")
    assert not is_ignored("model_repository/image_edit/configs/cpu.pbtxt")


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.stem)
def test_every_image_runs_without_root_and_asks_the_models(dockerfile: Path) -> None:
    assert all(user.isdecimal() and int(user) > 0 for user in instruction(dockerfile, "USER"))
    assert instruction(dockerfile, "USER")
    (check,) = instruction(dockerfile, "HEALTHCHECK")
    assert "triton_health.py" in check or "/readyz" in check
    for started in instruction(dockerfile, "ENTRYPOINT"):
        assert started.startswith("["), "a shell between would keep signals from the server"


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.stem)
def test_every_base_image_is_an_argument_and_its_default_does_not_float(dockerfile: Path) -> None:
    (argument,) = instruction(dockerfile, "ARG")
    name, default = argument.split("=")
    assert re.search(r":\d+\.\d+-", default)
    stages = [stage.split(" AS ") for stage in instruction(dockerfile, "FROM")]
    names = [stage[1] for stage in stages if len(stage) > 1]
    assert {stage[0] for stage in stages} - {*names} == {f"${{{name}}}"}


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.stem)
def test_a_build_asks_no_registry_for_its_syntax(dockerfile: Path) -> None:
    assert not re.search(r"^#\s*syntax\s*=", dockerfile.read_text(), re.MULTILINE)


def requirements_of(*extras: str) -> str:
    """Return what the images install for these extras, one requirement a line."""
    return subprocess.run(
        [sys.executable, "docker/requirements_of.py", *extras],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout


@pytest.mark.parametrize("extra", ["frontend", "models", "export"])
def test_an_image_installs_what_the_extra_says(extra: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = project["optional-dependencies"][extra]
    listed = requirements_of(extra).splitlines()
    assert listed == [each for each in wanted if not each.startswith("artmancer-triton[")]
    assert len(listed) >= 4


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("extras", [["frontend", "postgres"], ["models"], ["models", "export"]])
def test_what_an_image_installs_resolves_for_its_python(extras: list[str], tmp_path: Path) -> None:
    """For Python 3.12 on glibc 2.39, wheels alone; asks the package index."""
    requirements = tmp_path / "requirements.txt"
    requirements.write_text(requirements_of(*extras))
    platforms = [f"--platform=manylinux_2_{minor}_x86_64" for minor in range(39, 16, -1)]
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed"),
            *("--python-version=3.12", "--only-binary=:all:", "--target", str(tmp_path / "target")),
            *platforms,
            *("--platform=manylinux2014_x86_64", "--platform=linux_x86_64"),
            *("--constraint", "constraints.txt", "--requirement", str(requirements)),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Would install" in done.stdout


def test_the_bindings_of_tensorrt_are_those_of_the_image() -> None:
    assert tensorrt_requirement.requirement(101305) == "tensorrt-cu13-bindings==10.13.5.*"
    assert tensorrt_requirement.requirement(110400) == "tensorrt-cu13-bindings==11.4.0.*"


def test_an_image_without_tensorrt_gets_no_bindings(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tensorrt_requirement, "LIBRARIES", tmp_path)
    tensorrt_requirement.main()
    assert capsys.readouterr().out == ""


@pytest.fixture
def image(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """Lay out what an image for GPUs has: bindings, a compiler, Python's headers."""
    (tmp_path / "tensorrt.py").write_text("")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "clang").touch(mode=0o755)
    (tmp_path / "include").mkdir()
    (tmp_path / "include" / "Python.h").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    paths = SimpleNamespace(get_path=lambda _: str(tmp_path / "include"))
    monkeypatch.setattr(gpu_check, "sysconfig", paths)
    yield tmp_path
    sys.modules.pop("tensorrt", None)


def test_an_image_that_can_compile_and_build_plans_is_built(image: Path) -> None:
    assert gpu_check.problems() == []
    assert gpu_check.main() == 0


@pytest.mark.parametrize(
    ("missing", "problem"),
    [
        ("tensorrt.py", "TensorRT's bindings do not load: No module named 'tensorrt'"),
        ("bin/clang", "no C compiler: neither gcc nor clang"),
        ("include/Python.h", "Python's headers are missing: .*/include/Python.h"),
    ],
)
def test_an_image_that_would_fail_on_a_gpu_is_not_built(
    image: Path, missing: str, problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (image / missing).unlink()
    assert gpu_check.main() == 1
    assert re.fullmatch(problem, capsys.readouterr().err.strip())


def test_bindings_without_their_libraries_are_a_problem(image: Path) -> None:
    # As the loader says it where the image's TensorRT is another than the bindings'.
    text = "libnvonnxparser.so.11: cannot open shared object file"
    (image / "tensorrt.py").write_text(f"raise ImportError({text!r})")
    [problem] = gpu_check.problems()
    assert problem == f"TensorRT's bindings do not load: {text}"


def test_the_image_that_builds_plans_is_checked() -> None:
    built = (ROOT / "docker" / "triton.Dockerfile").read_text().split("FROM ")
    [stage] = [each for each in built if "tensorrt_requirement.py >" in each]
    assert stage.index("--requirement tensorrt.txt") < stage.index("python gpu_check.py")


def test_the_frontend_needs_no_torch() -> None:
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    frontend = " ".join(wanted["optional-dependencies"]["frontend"])
    assert not re.search(r"torch|diffusers|transformers|opencv", frontend)
