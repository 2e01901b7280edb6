"""Measures with weights: against independent code where the weights come in a wheel, else on tiny random networks."""

from __future__ import annotations

import math
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gsth import metrics
from gsth.errors import InputError, MissingExtraError
from gsth.metrics import WeightsAbsentError, _distribution, _natural, _weights


@pytest.fixture
def pair() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(5)
    smooth = np.cumsum(np.cumsum(rng.normal(size=(96, 80, 3)), 0), 1)
    a = (smooth - smooth.min()) / np.ptp(smooth)
    return a, np.clip(a + rng.normal(scale=0.1, size=a.shape), 0, 1)


@pytest.fixture
def stubs(monkeypatch: pytest.MonkeyPatch) -> None:
    """What stlpips-pytorch imports and does not need."""
    for name, values in {"torchvision": {}, "torchsummary": {"summary": None}, "IPython": {"embed": None}}.items():
        module = types.ModuleType(name)
        module.__dict__.update(values)
        monkeypatch.setitem(sys.modules, name, module)
    models = types.ModuleType("torchvision.models")
    monkeypatch.setitem(sys.modules, "torchvision.models", models)
    monkeypatch.setattr(sys.modules["torchvision"], "models", models, raising=False)


@pytest.mark.usefixtures("stubs")
def test_st_lpips_equals_the_package_that_it_takes_its_weights_from(pair: tuple[np.ndarray, np.ndarray]) -> None:
    theirs: Any = pytest.importorskip("stlpips_pytorch.stlpips", reason="stlpips-pytorch is absent")
    network = theirs.LPIPS(net="alex", variant="shift_tolerant", verbose=False)
    a, b = (torch.from_numpy(p).permute(2, 0, 1)[None].float() for p in pair)
    with torch.no_grad():
        want = float(network(a, b, normalize=True))
    mine = metrics.st_lpips()
    found = mine.distance(*(mine.features(p) for p in pair))
    assert found == pytest.approx(want, rel=1e-5) and found > 0.05
    assert mine.distance(mine.features(pair[0]), mine.features(pair[0])) == 0


def test_st_lpips_hardly_feels_a_shift_of_one_pixel(pair: tuple[np.ndarray, np.ndarray]) -> None:
    pytest.importorskip("stlpips_pytorch", reason="stlpips-pytorch is absent")
    mine = metrics.st_lpips()
    a, noisy = (mine.features(p[:-1]) for p in pair)
    assert mine.distance(mine.features(pair[0][1:]), a) < 0.2 * mine.distance(noisy, a)
    with pytest.raises(InputError, match="at least 64 px"):
        mine.features(pair[0][:40])


def _alexnet(folder: Path, width: int = 8) -> None:
    shapes = [(3, 11), (width, 5), (width, 3), (width, 3), (width, 3)]
    layers = zip((0, 3, 6, 8, 10), shapes, strict=True)
    convs = {f"features.{i}.weight": torch.randn(width, c, k, k) / (c * k * k) ** 0.5 for i, (c, k) in layers}
    convs |= {f"features.{i}.bias": torch.randn(width) for i in (0, 3, 6, 8, 10)}
    torch.save(convs | {"classifier.1.weight": torch.zeros(3, 3)}, folder / "alexnet-owt-7be5be79.pth")
    torch.save({f"lin{i}.model.1.weight": torch.rand(1, width, 1, 1) for i in range(5)}, folder / "lpips_alex.pth")


def test_lpips_by_path_follows_its_formula(tmp_path: Path, pair: tuple[np.ndarray, np.ndarray]) -> None:
    _alexnet(tmp_path)
    network = metrics.lpips(tmp_path)
    a, b = (network.features(p) for p in pair)
    assert [f.shape[2] for f in a] == [23, 11, 5, 5, 5]  # AlexNet's strides on 96 px
    assert all(float((f.square().sum(1) - 1).abs().max()) < 1e-3 or f.min() == 0 for f in a)
    heads = torch.load(tmp_path / "lpips_alex.pth", weights_only=True)
    want = sum(float((heads[f"lin{i}.model.1.weight"] * (a[i] - b[i]) ** 2).sum(1).mean()) for i in range(5))
    assert network.distance(a, b) == pytest.approx(want, rel=1e-5)
    assert network.distance(a, a) == 0


def test_absent_weights_are_said_and_never_a_number(tmp_path: Path) -> None:
    makers = (metrics.lpips, metrics.SyncNet, metrics.ArcFace, metrics.Inception)
    for make in makers:
        with pytest.raises(WeightsAbsentError, match="--weights"):
            make(None)
        with pytest.raises(WeightsAbsentError, match=r"which is not in"):
            make(tmp_path)
    with pytest.raises(MissingExtraError, match=r"no-such-package.*gsth\[eval\]"):
        _weights.packaged("no_such_package", "no-such-package", "x", purpose="a test")


def test_a_checkpoint_that_holds_code_or_something_else_is_refused(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return (exec, ("raise SystemExit('ran')",))

    torch.save({"x": Evil()}, tmp_path / "evil.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    (tmp_path / "torn.pth").write_bytes(b"PK\x03\x04torn")
    for name in ("evil.pth", "list.pth", "torn.pth"):
        with pytest.raises(InputError, match=name):
            _weights.checkpoint(tmp_path / name)
    torch.save({"state_dict": {"module.a": torch.ones(2)}}, tmp_path / "wrapped.pth")
    assert list(_weights.checkpoint(tmp_path / "wrapped.pth")) == ["a"]


# ------------------------------------------------------------------------------------------------ sync


def _tiny_syncnet(path: Path, width: int = 4) -> None:
    """Random weights in the published layout, a few channels wide."""
    plan = {
        "netcnnaud": (1, [(3, 3), (3, 3), (3, 3), (3, 3), (3, 3), (5, 4)]),
        "netcnnlip": (3, [(5, 7, 7), (1, 5, 5), (1, 3, 3), (1, 3, 3), (1, 3, 3), (1, 6, 6)]),
    }
    tensors: dict[str, torch.Tensor] = {}
    for net, (channels, kernels) in plan.items():
        for at, kernel in zip((0, 4, 8, 11, 14, 18), kernels, strict=True):
            tensors[f"{net}.{at}.weight"] = torch.randn(width, channels, *kernel) * 0.1
            tensors[f"{net}.{at}.bias"] = torch.zeros(width)
            tensors |= _norm(f"{net}.{at + 1}", width)
            channels = width
    for net in ("netfcaud", "netfclip"):
        tensors |= {f"{net}.0.weight": torch.randn(6, width), f"{net}.0.bias": torch.randn(6)} | _norm(f"{net}.1", 6)
        tensors |= {f"{net}.3.weight": torch.randn(10, 6), f"{net}.3.bias": torch.randn(10)}
    torch.save(tensors, path, _use_new_zipfile_serialization=False)  # as old as the published file


def _norm(name: str, width: int) -> dict[str, torch.Tensor]:
    values = {"weight": torch.ones(width), "bias": torch.zeros(width), "running_mean": torch.zeros(width)}
    values |= {"running_var": torch.ones(width), "num_batches_tracked": torch.tensor(0)}
    return {f"{name}.{k}": v for k, v in values.items()}


def test_syncnet_reads_the_published_layout_and_judges_a_clip(tmp_path: Path) -> None:
    _tiny_syncnet(tmp_path / "syncnet_v2.model")
    net = metrics.SyncNet(tmp_path)
    faces = np.random.default_rng(0).integers(0, 256, (9, 224, 224, 3)).astype(np.uint8)
    sound = np.random.default_rng(1).normal(size=9 * 640).astype(np.float32) / 9
    judged = net.judge(faces, sound)
    assert judged is not None and judged.distance > 0 and judged.confidence >= 0
    assert net.judge(faces[:5], sound) is None
    damaged = torch.load(tmp_path / "syncnet_v2.model", weights_only=True)
    del damaged["netfclip.3.bias"]
    torch.save(damaged, tmp_path / "syncnet_v2.model")
    with pytest.raises(InputError, match=r"(?s)syncnet_v2\.model.*netfclip\.3\.bias"):
        metrics.SyncNet(tmp_path)


@pytest.mark.parametrize("late", [-7, 0, 3, 12])
def test_sync_finds_the_shift_exactly_and_falls_with_it(late: int) -> None:
    generator = torch.Generator().manual_seed(0)
    audio = torch.randn(120, 16, generator=generator)
    video = audio.roll(late, 0)[20:100]
    judged = metrics.sync_of(video, audio[20:100])
    assert judged.lag == late
    # the score falls monotonically as the features of the pictures drift away from those of the sound
    scores = [
        metrics.sync_of(video + noise * torch.randn(video.shape, generator=generator), audio[20:100])
        for noise in (0.0, 0.5, 1.0, 2.0, 4.0)
    ]
    assert all(
        a.confidence > b.confidence and a.distance < b.distance for a, b in zip(scores, scores[1:], strict=False)
    )


def test_mfcc_equals_python_speech_features() -> None:
    """Values of python_speech_features 0.6, ``mfcc(32768 * sound, 16000)``."""
    at = np.arange(4000)
    sound = (0.3 * np.sin(at * 0.05) + 0.1 * np.sin(at * at * 1e-4)).astype(np.float32)
    found = metrics.mfcc(sound)
    assert found.shape == (24, 13)
    assert found[[0, 11, -1]][:, :5] == pytest.approx(
        np.array(
            [
                [17.6171, 24.5595, 18.4888, 16.5087, 14.5069],
                [19.0789, 25.506, -7.7905, -19.1745, 3.9139],
                [20.0199, 1.1225, -19.0019, 30.8338, 53.0618],
            ]
        ),
        abs=1e-3,
    )


def test_crops_for_sync_stay_on_the_face_and_bridge_gaps() -> None:
    picture = np.zeros((200, 200, 3), np.uint8)
    picture[60:120, 80:120] = 255
    points = np.zeros((5, 478, 2))
    points[..., 0], points[..., 1] = 100, 90
    points[:, 0], points[:, 10] = (80, 60), (120, 120)
    points[2] = np.nan
    crops = metrics.sync_crops([picture] * 5, points)
    assert crops is not None and crops.shape == (5, 224, 224, 3)
    assert np.array_equal(crops[2], crops[1])
    # half the box is 30 px, the crop 84 px wide: from 30 px above the centre to 54 below
    rows = np.flatnonzero(crops[0][:, 112, 0] > 128)
    assert rows[0] <= 1 and rows[-1] == pytest.approx(60 / 84 * 224, abs=3)
    assert metrics.sync_crops([picture], np.full((1, 478, 2), np.nan)) is None


# ------------------------------------------------------------------------------------------------ sets, identity, NIQE


def test_frechet_distance_of_known_gaussians() -> None:
    rng = np.random.default_rng(0)
    a = rng.normal(size=(4000, 3)) * (1, 2, 3)
    b = rng.normal(size=(4000, 3)) * (2, 2, 1) + (5, 0, 0)
    assert metrics.frechet_distance(a, a) == pytest.approx(0, abs=1e-8)
    assert metrics.frechet_distance(a, a + (3, 4, 0)) == pytest.approx(25, abs=1e-8)
    assert metrics.frechet_distance(a, b) == pytest.approx(25 + 1 + 0 + 4, rel=0.03)
    linalg = pytest.importorskip("scipy.linalg")
    root = linalg.sqrtm(np.cov(a.T) @ np.cov(b.T)).real
    want = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(np.cov(a.T) + np.cov(b.T) - 2 * root)
    assert metrics.frechet_distance(a, b) == pytest.approx(want, rel=1e-9)
    few = rng.normal(size=(6, 40))  # fewer pictures than dimensions, as always with FID
    assert metrics.frechet_distance(few, 2 * few) == pytest.approx(
        (few.mean(0) ** 2).sum() + np.trace(np.cov(few.T)), rel=1e-9
    )
    with pytest.raises(ValueError, match="at least two"):
        metrics.frechet_distance(a[:1], b)


def test_inception_is_the_published_network(tmp_path: Path) -> None:
    net = _distribution.network()
    # Inception v3 has 23.8 M parameters without its auxiliary head; 2.05 M of them are its classifier
    assert sum(p.numel() for p in net.parameters()) == 21_785_568
    names = set(net.state_dict())
    assert {"Mixed_5b.branch5x5_2.conv.weight", "Mixed_6e.branch7x7dbl_5.bn.running_var"} <= names
    assert {"Mixed_7c.branch3x3dbl_3b.conv.weight", "Conv2d_4a_3x3.bn.bias"} <= names
    torch.save(net.state_dict() | {"fc.weight": torch.zeros(2, 2)}, tmp_path / _distribution.INCEPTION_FILE)
    features = metrics.Inception(tmp_path).features(
        [np.zeros((40, 50, 3), np.uint8), np.full((40, 50, 3), 255, np.uint8)]
    )
    assert features.shape == (2, 2048) and np.isfinite(features).all() and not np.array_equal(*features)


def test_niqe_equals_scikit_video(monkeypatch: pytest.MonkeyPatch) -> None:
    astronaut = pytest.importorskip("skimage.data", reason="scikit-image is absent").astronaut()
    theirs = _skvideo_niqe(monkeypatch)
    luma = (astronaut / 255) @ _natural._LUMA * 255
    want = float(theirs(luma[None, :, :, None])[0])
    assert metrics.niqe(astronaut) == pytest.approx(want, rel=0.01)
    noisy = np.clip(astronaut + np.random.default_rng(0).normal(scale=40, size=astronaut.shape), 0, 255)
    assert metrics.niqe(noisy.astype(np.uint8)) > metrics.niqe(astronaut)
    with pytest.raises(InputError, match="at least 384 px"):
        metrics.niqe(astronaut[:350])


def _skvideo_niqe(monkeypatch: pytest.MonkeyPatch) -> Any:
    """scikit-video's own function, with what numpy and scipy took away since."""
    import scipy.misc
    from PIL import Image

    def imresize(picture: np.ndarray, factor: float, interp: str, mode: str) -> np.ndarray:
        size = tuple(int(n * factor) for n in picture.shape[::-1])
        return np.asarray(Image.fromarray(picture, mode=mode).resize(size, Image.Resampling.BICUBIC))

    for name in ("int", "float", "bool"):
        monkeypatch.setattr(np, name, {"int": int, "float": float, "bool": bool}[name], raising=False)
    monkeypatch.setattr(scipy.misc, "imresize", imresize, raising=False)
    return pytest.importorskip("skvideo.measure", reason="scikit-video is absent").niqe


def test_flat_pictures_have_a_finite_niqe() -> None:
    pytest.importorskip("skvideo", reason="scikit-video is absent")
    assert math.isfinite(metrics.niqe(np.full((400, 400, 3), 90, np.uint8)))


def _astronaut() -> tuple[np.ndarray, np.ndarray]:
    mediapipe = pytest.importorskip("mediapipe", reason="mediapipe is absent")
    picture = pytest.importorskip("skimage.data", reason="scikit-image is absent").astronaut()
    with mediapipe.solutions.face_mesh.FaceMesh(static_image_mode=True, refine_landmarks=True) as mesh:
        points = mesh.process(picture).multi_face_landmarks[0].landmark
    return picture, np.array([(p.x, p.y) for p in points]) * 512


def test_the_same_face_is_the_same_person_and_another_is_not() -> None:
    pytest.importorskip("dlib", reason="dlib is absent")
    picture, points = _astronaut()
    embed = metrics.dlib_embedder()
    me = embed(picture, points)
    assert me.shape == (128,)
    darker = embed((picture * 0.7).astype(np.uint8), points)
    assert metrics.cosine(me, darker) > 0.97 and np.linalg.norm(me - darker) < 0.3
    # a face turned into something else: features swapped top to bottom
    box = metrics.face_box(points, 512, 512)
    assert box is not None
    other = picture.copy()
    other[box[1] : box[3], box[0] : box[2]] = metrics.cut(picture, box)[::-1]
    assert np.linalg.norm(me - embed(other, points)) > 0.6


def test_arcface_by_path_sees_an_aligned_face(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx", reason="onnx is absent")
    pytest.importorskip("onnxruntime", reason="onnxruntime is absent")
    helper, tensor = onnx.helper, onnx.TensorProto
    shapes = [("x", [1, 3, 112, 112]), ("y", [1, 3])]
    x, y = (helper.make_tensor_value_info(n, tensor.FLOAT, s) for n, s in shapes)
    mean = helper.make_node("GlobalAveragePool", ["x"], ["m"])
    flat = helper.make_node("Flatten", ["m"], ["y"])
    graph = helper.make_graph([mean, flat], "mean_colour", [x], [y])
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), tmp_path / "arcface.onnx"
    )
    points = np.zeros((478, 2))
    template = ((38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366), (41.5493, 92.3655), (70.7299, 92.2041))
    for ids, place in zip(((33, 133), (362, 263), (1,), (61,), (291,)), template, strict=True):
        points[list(ids)] = 2 * np.array(place) + 10
    picture = np.full((240, 240, 3), (255, 0, 51), np.uint8)
    assert metrics.ArcFace(tmp_path)(picture, points) == pytest.approx([1.0, -1.0, -0.6], abs=0.01)
    (tmp_path / "arcface.onnx").write_bytes(b"no network")
    with pytest.raises(InputError, match=r"arcface\.onnx"):
        metrics.ArcFace(tmp_path)
