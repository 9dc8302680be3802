"""Owns the closed-form start of the demo's VAE: principal components in, least squares out.

From random weights, an autoencoder of this class learns for days. But its encoder can hold a linear
transform of 8 x 8 patches exactly, and its decoder a linear interpolation of that transform. The
residual branches start at zero, and training the decoder begins from there.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

PATCH = 8
# A large constant channel turns the last normalisation into a division by that constant. So the
# encoder becomes almost exactly linear, and the decoder, which is trained, nearly so.
ENCODER_CONSTANT = 512.0
DECODER_CONSTANT = 8.0
# A latent channel's deviation is its component's deviation to this power. With 1, noise would hide
# the finest details until the last step. With 0, details would be as loud as the colours.
FLATTENING = 0.5
# The log variance that the encoder reports: about how far the transformer misses a latent.
LOG_VARIANCE = -6.0
RIDGE = 1e-3
SAMPLES = 60_000


@torch.no_grad()
def start(vae: Any, pictures: Tensor, generator: torch.Generator) -> None:
    """Set all weights of the VAE, so that it reproduces pictures about as well as linear coding.

    Args:
        vae: an AutoencoderKLQwenImage of three halvings, without convolutions over time.
        pictures: float32 [n, 3, size, size] in -1..1, the size a multiple of 8.
        generator: draws which pixels are compared, and which context the decoder looks at.
    """
    for module in vae.modules():
        if hasattr(module, "conv2"):  # a residual block: its branch begins at zero
            module.conv2.weight.zero_()
            module.conv2.bias.zero_()
            if hasattr(module.conv_shortcut, "weight"):
                _pass_on(module.conv_shortcut)
        if hasattr(module, "to_qkv"):
            module.proj.weight.zero_()
            module.proj.bias.zero_()
    components, mean = principal_components(pictures, vae.config.z_dim)
    _start_encoder(vae, components, mean)
    _start_decoder(vae, pictures, generator)


def principal_components(pictures: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Find the directions in which 8 x 8 patches differ most.

    Args:
        pictures: float32 [n, 3, size, size], the size a multiple of 8.
        count: how many directions.

    Returns:
        The components, float32 [count, 3, 8, 8], and the mean patch, float32 [3, 8, 8]. Patch
        times component has the deviation that FLATTENING leaves; the first deviation is 1.
    """
    patches = functional.unfold(pictures, PATCH, stride=PATCH).transpose(1, 2).flatten(0, 1)
    mean = patches.mean(dim=0)
    values, vectors = torch.linalg.eigh((patches - mean).T.double().cov())
    values, vectors = values.flip(0)[:count], vectors.flip(1)[:, :count]
    # Libraries choose an eigenvector's sign freely; a fixed sign repeats everywhere.
    vectors = vectors * vectors.sum(dim=0).sign()
    deviations = (values / values[0]).sqrt() ** FLATTENING
    scaled = (vectors / values.sqrt() * deviations).T
    return scaled.float().view(count, 3, PATCH, PATCH), mean.view(3, PATCH, PATCH)


def _start_encoder(vae: Any, components: Tensor, mean: Tensor) -> None:
    encoder = vae.encoder
    count = len(components)
    first, second, third = (
        layer.resample[1] for layer in encoder.down_blocks if hasattr(layer, "resample")
    )
    _pass_on(encoder.conv_in)
    # The first convolution loses nothing: 2 x 2 pixels of three colours become 12 channels.
    for convolution in (first, second, third):
        convolution.weight.zero_()
        convolution.bias.zero_()
    for index in range(4):
        for colour in range(3):
            first.weight[3 * index + colour, colour, index // 2, index % 2] = 1
    # The second convolution keeps the part of 4 x 4 pixels that the components use most.
    blocks = _quartered(components, PATCH // 2)  # [count, 4 blocks, 48]
    kept = min(second.out_channels, 48)
    basis = torch.linalg.svd(blocks.reshape(-1, 48), full_matrices=False).Vh[:kept]
    second.weight[:kept, :12, :2, :2] = _halved(basis)
    coordinates = blocks @ basis.T  # [count, 4 blocks, kept]
    weights = coordinates.view(count, 2, 2, kept).permute(0, 3, 1, 2)
    offset = -(components * mean).sum(dim=(1, 2, 3))
    for sign, at in ((1, 0), (-1, count)):
        third.weight[at : at + count, :kept, :2, :2] = sign * weights
        third.bias[at : at + count] = sign * offset
    third.bias[2 * count] = ENCODER_CONSTANT
    _cancel_activation(encoder, count, ENCODER_CONSTANT)
    encoder.conv_out.bias[count:] = LOG_VARIANCE
    _pass_on(vae.quant_conv)


def _start_decoder(vae: Any, pictures: Tensor, generator: torch.Generator) -> None:
    decoder = vae.decoder
    _pass_on(vae.post_quant_conv)
    latents = vae.encode(pictures[:, :, None]).latent_dist.mode()[:, :, 0]
    count = latents.shape[1]
    # The first channels are the latents themselves, the others mixtures of their neighbourhoods.
    mixing = decoder.conv_in.weight
    mixing.zero_()
    decoder.conv_in.bias.zero_()
    context = torch.randn(mixing[count:, :, -1].shape, generator=generator)
    mixing[count:, :, -1] = context / (9 * count) ** 0.5
    mixing[:count, :, -1, 1, 1] = torch.eye(count)
    features = functional.conv2d(latents, mixing[:, :, -1], padding=1)
    for block, side in zip(decoder.up_blocks, (4, 2, 1, None), strict=True):
        if side is None:
            break
        convolution = block.upsamplers[0].resample[1]
        targets = _coefficients(pictures, side, convolution.out_channels)
        # The last convolution gives every colour twice, once negated, to cancel the activation.
        targets = torch.cat([targets, -targets], dim=1) if side == 1 else targets
        features = _fit(convolution, features, targets, generator)
    convolution.bias[6] = DECODER_CONSTANT
    _cancel_activation(decoder, 3, DECODER_CONSTANT)


def _coefficients(pictures: Tensor, side: int, most: int) -> Tensor:
    """Return the principal coefficients of the pictures in blocks of side x side pixels."""
    blocks = functional.pixel_unshuffle(pictures, side)
    flat = blocks.transpose(0, 1).flatten(1)
    vectors = torch.linalg.eigh(flat.double().cov()).eigenvectors.flip(1).float()
    return torch.einsum("nchw,ck->nkhw", blocks, vectors[:, :most]) if side > 1 else pictures


def _fit(convolution: Any, features: Tensor, targets: Tensor, generator: torch.Generator) -> Tensor:
    """Set a convolution that turns the enlarged features into the targets, and apply it.

    Channels without a target start at zero; the residual branches will use them.
    """
    enlarged = functional.interpolate(features, scale_factor=2, mode="nearest-exact")
    known, wanted = enlarged.shape[1], targets.shape[1]
    columns = functional.unfold(enlarged, 3, padding=1).transpose(1, 2).flatten(0, 1)
    rows = targets.flatten(2).transpose(1, 2).flatten(0, 1)
    chosen = torch.randint(len(rows), (SAMPLES,), generator=generator)
    columns, rows = columns[chosen].double(), rows[chosen].double()
    columns = torch.cat([columns, torch.ones(len(columns), 1, dtype=torch.float64)], dim=1)
    gram = columns.T @ columns / len(columns)
    gram += RIDGE * gram.diagonal().mean() * torch.eye(len(gram), dtype=torch.float64)
    solution = torch.linalg.solve(gram, columns.T @ rows / len(columns)).T.float()
    convolution.weight.zero_()
    convolution.bias.zero_()
    convolution.weight[:wanted, :known] = solution[:, :-1].view(wanted, known, 3, 3)
    convolution.bias[:wanted] = solution[:, -1]
    weight, bias = convolution.weight[:wanted, :known], convolution.bias[:wanted]
    return functional.conv2d(enlarged, weight, bias, padding=1)


def _cancel_activation(coder: Any, count: int, constant: float) -> None:
    """Make the last normalisation, SiLU and convolution pass on `count` channels.

    They take x from channel i and -x from channel count + i: silu(x) - silu(-x) = x.
    """
    gamma = coder.norm_out.gamma
    gamma.fill_(constant / gamma.shape[0] ** 0.5)
    weight = coder.conv_out.weight
    weight.zero_()
    coder.conv_out.bias.zero_()
    for index in range(count):
        weight[index, index, -1, 1, 1] = 1
        weight[index, count + index, -1, 1, 1] = -1


def _pass_on(convolution: Any) -> None:
    """Let a causal convolution pass on the frame's own channels, as many as fit."""
    weight = convolution.weight
    weight.zero_()
    convolution.bias.zero_()
    centre = weight.shape[-1] // 2
    for channel in range(min(weight.shape[:2])):
        weight[channel, channel, -1, centre, centre] = 1


def _quartered(kernels: Tensor, half: int) -> Tensor:
    """Reorder [n, 3, 8, 8] into [n, 4 blocks, 48], in the second convolution's order."""
    blocks = kernels.unfold(2, half, half).unfold(3, half, half)  # [n, 3, 2, 2, 4, 4]
    pairs = blocks.unfold(4, 2, 2).unfold(5, 2, 2)  # [n, 3, 2, 2, 2, 2, 2, 2]
    # Outer block, then place among the 2 x 2 of the second, then the 12 channels of the first.
    ordered = pairs.permute(0, 2, 3, 4, 5, 6, 7, 1)
    return ordered.reshape(len(kernels), 4, 48)


def _halved(basis: Tensor) -> Tensor:
    """Reorder [n, 48] in the order of `_quartered` into kernels [n, 12, 2, 2]."""
    return basis.view(len(basis), 2, 2, 12).permute(0, 3, 1, 2)
