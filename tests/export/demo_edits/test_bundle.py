"""The demo bundle: small, recognised, and every input of its pipeline matters."""

import shutil
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import diffusers.pipelines.qwenimage.pipeline_qwenimage_edit_plus as edit_plus
import numpy as np
import numpy.typing as npt
import pytest
import torch
from diffusers import QwenImageEditPlusPipeline
from PIL import Image
from safetensors.torch import load_file

from export import manifest
from export.demo_edits import bundle as demo_bundle
from export.demo_edits.release import IMAGE_AREA, IMAGE_AREAS
from export.demo_edits.samples import all_prompts
from export.preview import synthetic_pictures

SIZE = 128


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundles") / "demo"
    demo_bundle.place(folder)
    return folder


@pytest.fixture(scope="module")
def pipeline(bundle: Path) -> Iterator[Any]:
    pipeline = QwenImageEditPlusPipeline.from_pretrained(
        bundle / "pipeline", dtype=torch.float32, local_files_only=True
    )
    with warnings.catch_warnings():
        # peft warns when a model has several adapters.
        warnings.filterwarnings("ignore", "Already found a `peft_config`", UserWarning)
        for task_type, file in manifest.ADAPTERS.items():
            pipeline.load_lora_weights(
                bundle, weight_name=file, adapter_name=task_type, local_files_only=True
            )
    pipeline.set_adapters("insertion")
    pipeline.set_progress_bar_config(disable=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(edit_plus, "VAE_IMAGE_SIZE", SIZE * SIZE)
        yield pipeline


@pytest.fixture(scope="module")
def conditions() -> list[Image.Image]:
    torch.manual_seed(7)
    pixels = (synthetic_pictures(3, SIZE) * 255).byte().permute(0, 2, 3, 1).numpy()
    return [Image.fromarray(picture) for picture in pixels]


Picture = npt.NDArray[np.float32]
Edit = Callable[..., Picture]


@pytest.fixture(scope="module")
def edit(pipeline: Any, conditions: list[Image.Image]) -> Edit:
    def run(seed: int = 0, **changes: Any) -> Picture:
        arguments = {
            "image": conditions,
            "prompt": "insert a red ball",
            "negative_prompt": " ",
            "true_cfg_scale": 4.0,
            "num_inference_steps": 3,
            "height": SIZE,
            "width": SIZE,
            "generator": torch.Generator().manual_seed(seed),
            "output_type": "np",
        }
        picture: Picture = pipeline(**arguments | changes).images[0]
        return picture * 255

    return run


@pytest.fixture(scope="module")
def original(edit: Edit) -> Picture:
    return edit()


def test_it_is_small_and_says_how_it_was_made(bundle: Path) -> None:
    found = manifest.verify(bundle)
    assert sum(path.stat().st_size for path in bundle.rglob("*")) < 40_000_000
    assert found["image_area"] == IMAGE_AREA == 512 * 512
    assert found["image_areas"] == IMAGE_AREAS == {"white-balance": 384 * 384}
    assert set(found["training"]) == {"recipe", "minutes", "photographs", "versions"}
    weights = load_file(bundle / "pipeline/transformer/diffusion_pytorch_model.safetensors")
    assert {weight.dtype for weight in weights.values()} == {torch.float16}


def test_the_picture_is_not_flat(original: Picture) -> None:
    assert np.isfinite(original).all()
    assert original.std(axis=(0, 1)).min() > 20
    assert 40 < original.mean() < 215


def test_same_seed_same_pixels(edit: Edit, original: Picture) -> None:
    np.testing.assert_array_equal(edit(), original)


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 1},
        {"prompt": "insert a blue ball"},
        {"prompt": "把物体去掉"},
        {"negative_prompt": "insert a blue ball"},
        {"true_cfg_scale": 1.0},
        {"num_inference_steps": 4},
    ],
    ids=str,
)
def test_every_input_changes_the_picture(
    edit: Edit, original: Picture, changes: dict[str, Any]
) -> None:
    assert np.abs(edit(**changes) - original).max() > 2


def test_each_condition_and_their_order_change_the_picture(
    edit: Edit, original: Picture, conditions: list[Image.Image]
) -> None:
    for index in range(3):
        blanked = list(conditions)
        blanked[index] = Image.new("RGB", (SIZE, SIZE))
        assert np.abs(edit(image=blanked) - original).max() > 2
    assert np.abs(edit(image=conditions[::-1]) - original).max() > 2


def test_each_adapter_gives_another_picture(edit: Edit, original: Picture, pipeline: Any) -> None:
    pictures = [original]
    try:
        for adapter in ("removal", "white-balance"):
            pipeline.set_adapters(adapter)
            pictures.append(edit())
        pipeline.disable_lora()
        pictures.append(edit())
        pipeline.enable_lora()
    finally:
        pipeline.set_adapters("insertion")
    for index, picture in enumerate(pictures):
        for other in pictures[:index]:
            assert np.abs(picture - other).mean() > 2
    np.testing.assert_array_equal(edit(), original)


def test_the_system_prompt_is_as_long_as_what_the_pipeline_drops(pipeline: Any) -> None:
    system_prompt, rest = pipeline.prompt_template_encode.split("{}")
    tokenize = pipeline.tokenizer
    assert len(tokenize(system_prompt).input_ids) == pipeline.prompt_template_encode_start_idx
    assert tokenize.decode(tokenize("写实 photo ①").input_ids) == "写实 photo ①"
    assert tokenize.decode(tokenize(rest).input_ids) == rest


def test_words_of_the_prompts_it_learned_are_tokens(pipeline: Any) -> None:
    for prompt in all_prompts():
        assert len(pipeline.tokenizer(prompt).input_ids) == len(prompt.split())


@pytest.fixture(scope="module")
def unseen_latents(pipeline: Any) -> torch.Tensor:
    """Latents, as the VAE encodes them, of pictures that the build has not seen."""
    torch.manual_seed(3)
    pictures = synthetic_pictures(8, SIZE)
    with torch.no_grad():
        latents: torch.Tensor = pipeline.vae.encode(2 * pictures[:, :, None] - 1).latent_dist.mode()
    return latents


def normalised(latents: torch.Tensor, vae: Any) -> torch.Tensor:
    mean, std = torch.tensor(vae.config.latents_mean), torch.tensor(vae.config.latents_std)
    return (latents[:, :, 0] - mean[:, None, None]) / std[:, None, None]


def test_the_preview_resembles_the_decoded_picture(
    unseen_latents: torch.Tensor, pipeline: Any, bundle: Path
) -> None:
    preview = manifest.verify(bundle)["preview"]
    latents = normalised(unseen_latents, pipeline.vae)
    colours = torch.einsum("nzhw,zc->nchw", latents, torch.tensor(preview["factors"]))
    colours += torch.tensor(preview["bias"])[:, None, None]
    with torch.no_grad():
        decoded = pipeline.vae.decode(unseen_latents).sample[:, :, 0] / 2 + 0.5
    decoded = torch.nn.functional.avg_pool2d(decoded.clamp(0, 1), 8)
    assert np.corrcoef(colours.flatten(), decoded.flatten())[0, 1] > 0.5


def test_an_altered_or_outdated_bundle_is_not_current(bundle: Path, tmp_path: Path) -> None:
    assert demo_bundle.is_current(bundle)
    copy = tmp_path / "copy"
    shutil.copytree(bundle, copy)
    (copy / manifest.ADAPTERS["removal"]).write_bytes(b"")
    assert not demo_bundle.is_current(copy)
    shutil.rmtree(copy)
    shutil.copytree(bundle, copy)
    text = (copy / "manifest.json").read_text()
    (copy / "manifest.json").write_text(text.replace("recipe", "older"))
    assert not demo_bundle.is_current(copy)
    assert not demo_bundle.is_current(tmp_path / "nowhere")


def test_a_folder_of_something_else_is_never_deleted(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(manifest.ManifestError, match="no bundle"):
        demo_bundle.place(tmp_path)
    assert (tmp_path / "letter.txt").read_text() == "dear"
