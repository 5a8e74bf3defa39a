"""Many prompts in one batch, with one shared image embedding, answer like each prompt alone."""

import pytest
import torch

from napari_lightsam.model.build import build_sam, reduce_precision
from napari_lightsam.model.prompts import PositionEncoding
from napari_lightsam.model.sam import PromptTensors

N = 5


@pytest.fixture(scope="module")
def sam():
    torch.manual_seed(0)
    return build_sam("vit_t").eval().requires_grad_(False)


@pytest.fixture(scope="module", params=[(16, 16), (6, 11)], ids=["square", "oblong"])
def tokens(request):
    return torch.randn(1, 256, *request.param, generator=torch.Generator().manual_seed(1))


def prompts(tokens, kind):
    source = torch.Generator().manual_seed(2)
    size = torch.tensor([tokens.shape[-1], tokens.shape[-2]]) * 16.0
    points = torch.rand(N, 3, 2, generator=source) * size
    labels = torch.randint(-1, 2, (N, 3), generator=source)
    corners = torch.sort(torch.rand(N, 2, 2, generator=source) * size, dim=1).values
    masks = torch.randn(N, 1, tokens.shape[-2] * 4, tokens.shape[-1] * 4, generator=source)
    none = points[:, :0], labels[:, :0]
    return {
        "points": PromptTensors(points, labels),
        "boxes": PromptTensors(*none, corners.reshape(N, 4)),
        "boxes and points": PromptTensors(points, labels, corners.reshape(N, 4)),
        "masks and points": PromptTensors(points, labels, None, masks),
    }[kind]


def one(given, i):
    return PromptTensors(*(None if t is None else t[i : i + 1] for t in given))


KINDS = ["points", "boxes", "boxes and points", "masks and points"]


@pytest.mark.parametrize("several", [True, False], ids=["three masks", "one mask"])
@pytest.mark.parametrize("kind", KINDS)
def test_prompts_together_answer_like_each_alone(sam, tokens, kind, several):
    given = prompts(tokens, kind)
    logits, iou = sam.decode(tokens, given, several)
    assert logits.shape == (N, 3 if several else 1, tokens.shape[-2] * 4, tokens.shape[-1] * 4)
    assert iou.shape == logits.shape[:2]
    for i in range(N):
        alone, alone_iou = sam.decode(tokens, one(given, i), several)
        torch.testing.assert_close(logits[i : i + 1], alone, rtol=1e-4, atol=1e-4 * float(logits.std()))
        torch.testing.assert_close(iou[i : i + 1], alone_iou, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_shared_embedding_answers_like_one_that_is_repeated(sam, tokens, kind):
    exact = sam.double()
    try:
        given = prompts(tokens, kind)
        given = PromptTensors(*(t.double() if t is not None and t is not given.labels else t for t in given))
        shared = exact.decode(tokens.double(), given, True)
        repeated = exact.decode(tokens.double().expand(N, -1, -1, -1), given, True)
    finally:
        sam.float()
    torch.testing.assert_close(shared, repeated, rtol=1e-9, atol=1e-9)


def test_the_image_embedding_is_not_repeated_for_every_prompt(sam, tokens):
    seen = []
    first = sam.mask_decoder.transformer.layers[0].cross_attn_token_to_image
    handle = first.k_proj.register_forward_hook(lambda module, given, out: seen.append(len(given[0])))
    try:
        sam.decode(tokens, prompts(tokens, "points"), True)
    finally:
        handle.remove()
    assert seen == [1]


def test_where_a_padding_point_lies_does_not_matter(sam, tokens):
    points = torch.tensor([[[10.0, 20.0], [3.0, 4.0]], [[10.0, 20.0], [77.0, 5.0]]])
    labels = torch.tensor([[1, -1], [1, -1]])
    logits, _ = sam.decode(tokens, PromptTensors(points, labels), True)
    torch.testing.assert_close(logits[0], logits[1], rtol=1e-4, atol=1e-4 * float(logits.std()))


def test_positions_stay_in_float32_when_the_network_is_reduced(sam, tokens):
    reduced = reduce_precision(sam, torch.bfloat16)
    place = next(m for m in reduced.modules() if isinstance(m, PositionEncoding))
    assert place.positional_encoding_gaussian_matrix.dtype == torch.float32
    assert reduced.mask_decoder.iou_token.weight.dtype == torch.bfloat16
    assert sam.mask_decoder.iou_token.weight.dtype == torch.float32
    logits, _ = reduced.decode(tokens.bfloat16(), prompts(tokens, "points"), True)
    full, _ = sam.decode(tokens, prompts(tokens, "points"), True)
    assert (logits.float() - full).norm() < 0.1 * full.norm()
