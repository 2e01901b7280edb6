from __future__ import annotations

import math

import numpy as np
import pytest

from gsth import metrics


@pytest.fixture
def pair() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    smooth = np.cumsum(np.cumsum(rng.normal(size=(180, 193, 3)), 0), 1)
    a = (smooth - smooth.min()) / np.ptp(smooth)
    return a, np.clip(a + rng.normal(scale=0.07, size=a.shape), 0, 1)


def test_image_measures_equal_scikit_image(pair: tuple[np.ndarray, np.ndarray]) -> None:
    skimage = pytest.importorskip("skimage.metrics", reason="scikit-image is absent")
    a, b = pair
    options = {"channel_axis": -1, "gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    want, places = skimage.structural_similarity(a, b, data_range=1.0, full=True, **options)
    compared = metrics.Similarity(b).to(a)
    assert metrics.ssim(a, b) == pytest.approx(want, abs=1e-9)
    assert metrics.psnr(a, b) == pytest.approx(skimage.peak_signal_noise_ratio(b, a, data_range=1.0), abs=1e-9)
    places = places.mean(-1)
    assert compared.inside((30, 20, 60, 90)) == pytest.approx(places[20:90, 30:60].mean(), abs=1e-9)
    assert compared.inside((0, 0, 30, 20)) == pytest.approx(places[5:20, 5:30].mean(), abs=1e-9)
    mask = np.zeros(a.shape[:2], bool)
    mask[40:100, 50:70] = True
    assert compared.where(mask) == pytest.approx(places[mask].mean(), abs=1e-9)
    assert math.isnan(compared.where(np.zeros_like(mask)))


def test_ms_ssim_equals_pytorch_msssim(pair: tuple[np.ndarray, np.ndarray]) -> None:
    torch, other = (
        pytest.importorskip("torch"),
        pytest.importorskip("pytorch_msssim", reason="pytorch-msssim is absent"),
    )
    a, b = pair
    # an even size at every scale: how odd ones are halved is nobody's definition
    a, b = a[:176, :176], b[:176, :176]
    tensors = [torch.from_numpy(p).permute(2, 0, 1)[None] for p in (a, b)]
    want = float(other.ms_ssim(*tensors, data_range=1.0))
    similarity = metrics.Similarity(b)
    assert similarity.multi_scale(a) == pytest.approx(want, abs=1e-5)
    assert similarity.multi_scale(a, similarity.to(a)) == similarity.multi_scale(a)
    assert similarity.multi_scale(b) == pytest.approx(1.0)
    assert math.isnan(metrics.Similarity(b[:100]).multi_scale(a[:100]))


def test_bytes_and_unit_floats_score_alike(pair: tuple[np.ndarray, np.ndarray]) -> None:
    a, b = ((p * 255).round().astype(np.uint8) for p in pair)
    assert metrics.psnr(a, b) == pytest.approx(metrics.psnr(a / 255, b / 255))
    assert metrics.ssim(a, b) == pytest.approx(metrics.ssim(a / 255, b / 255))


def test_psnr_by_hand() -> None:
    black = np.zeros((4, 4, 3))
    assert metrics.psnr(black + 0.1, black) == pytest.approx(20.0)
    assert metrics.psnr(black, black) == math.inf
    half = black.copy()
    half[:2] = 0.1
    mask = np.zeros((4, 4), bool)
    mask[1:3] = True  # half of it is off by 0.1
    assert metrics.psnr(half, black, mask) == pytest.approx(-10 * math.log10(0.005))
    assert math.isnan(metrics.psnr(half, black, np.zeros((4, 4), bool)))


def test_ssim_of_equal_pictures_is_one_and_other_sizes_are_refused(pair: tuple[np.ndarray, np.ndarray]) -> None:
    assert metrics.ssim(pair[0], pair[0]) == pytest.approx(1.0)
    with pytest.raises(ValueError, match="at least 11 px"):
        metrics.ssim(np.zeros((10, 30, 3)), np.zeros((10, 30, 3)))
    with pytest.raises(ValueError, match="one size"):
        metrics.ssim(np.zeros((20, 30, 3)), np.zeros((30, 20, 3)))


def test_flip_is_a_map_that_tells_where_and_how_much() -> None:
    pytest.importorskip("flip_evaluator", reason="flip-evaluator is absent")
    grey = np.full((64, 64, 3), 128, np.uint8)
    spot = grey.copy()
    spot[20:30, 20:30] = (255, 0, 0)
    found = metrics.flip_map(spot, grey)
    assert found.shape == (64, 64) and metrics.flip_map(grey, grey).max() == 0
    assert found[25, 25] > 0.5 > 0.01 > found[60, 60]
    fainter = grey.copy()
    fainter[20:30, 20:30] = (150, 120, 120)
    assert 0 < metrics.flip_map(fainter, grey).mean() < found.mean()


def test_flicker_looks_only_where_the_reference_stands_still() -> None:
    reference = np.zeros((10, 10, 3), np.uint8)
    moved = reference.copy()
    moved[:5] = 99
    picture, after = reference.copy(), reference.copy()
    after[:5], after[5:] = 255, 4
    assert metrics.flicker(after, picture, moved, reference) == 4.0
    assert math.isnan(metrics.flicker(after, picture, np.full_like(moved, 99), reference))


def test_word_accuracy_is_one_less_the_edits() -> None:
    said = "bin blue at f two now".split()
    assert metrics.word_accuracy(said, said) == 1
    assert metrics.word_accuracy("bin green at two now please".split(), said) == pytest.approx(1 - 3 / 6)
    assert metrics.word_accuracy([], said) == 0
    assert metrics.word_accuracy(said, []) is None
