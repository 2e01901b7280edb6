"""Do lips and sound go together: SyncNet's confidence and distance (LSE-C, LSE-D), with weights by path.

Source: Chung and Zisserman 2016, in the form that the field reports since Wav2Lip (Prajwal et al. 2020): version 2 of
the weights, windows of 5 pictures at 25 Hz against 20 MFCC columns (0.2 s), shifts of up to 15 pictures. The face is
cropped as SyncNet's pipeline does, around MediaPipe's skin points instead of its own detector's box.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gsth.errors import InputError
from gsth.metrics import _weights
from gsth.metrics._image import Picture
from gsth.metrics._points import FACE, Points

if TYPE_CHECKING:
    from torch import Tensor

SYNC_FPS, SYNC_RATE = 25.0, 16000
WINDOW, COLUMNS_PER_PICTURE, SHIFT = 5, 4, 15
CROP_PX = 224
_MARGIN = 0.4
_BATCH = 16
SYNCNET_FILES = ("syncnet_v2.model", "syncnet.pth")


@dataclass(frozen=True)
class Sync:
    """SyncNet's judgement of one clip."""

    confidence: float
    """LSE-C: median of the distances over all shifts, less the least; higher is better."""
    distance: float
    """LSE-D: the least mean distance over all shifts; lower is better."""
    lag: int
    """Frames by which the lips come after the sound."""


def sync_of(video: Tensor, audio: Tensor, shift: int = SHIFT) -> Sync:
    """Compare features of pictures and of sound, both [t d]; sound beyond the ends counts as zeros, as in SyncNet."""
    import torch.nn.functional as F

    padded = F.pad(audio, (0, 0, shift, shift))
    mean = np.array(
        [float(F.pairwise_distance(video, padded[k : k + len(video)]).mean()) for k in range(2 * shift + 1)]
    )
    best = int(mean.argmin())
    # torch.median, which SyncNet uses, takes the lower middle value; 2 * shift + 1 is odd, so it is the middle one
    return Sync(float(np.median(mean) - mean[best]), float(mean[best]), shift - best)


class SyncNet:
    """The two networks of SyncNet; their widths are read from the checkpoint."""

    def __init__(self, folder: Path | None) -> None:
        """Load syncnet_v2.model from the folder.

        Raises:
            WeightsAbsentError: It is not there.
            InputError: The file holds something else.
        """
        path = _weights.given(folder, *SYNCNET_FILES, purpose="LSE-C and LSE-D")
        self._net = _weights.fill(_network(tensors := _weights.checkpoint(path), path), tensors, path)

    def judge(self, faces: NDArray[np.uint8], sound: NDArray[np.float32]) -> Sync | None:
        """Score a clip.

        Args:
            faces: Crops by ``sync_crops`` at 25 Hz, RGB, [t 224 224 3].
            sound: 16 kHz mono from the time of the first picture, [s].

        Returns:
            None where picture or sound is shorter than six frames.
        """
        import torch

        columns = torch.from_numpy(mfcc(sound)).float().T
        count = min(len(faces), len(sound) * int(SYNC_FPS) // SYNC_RATE) - WINDOW
        if count < 1:
            return None
        video, audio = [], []
        with torch.inference_mode():
            for start in range(0, count, _BATCH):
                at = range(start, min(count, start + _BATCH))
                # the weights were trained on OpenCV's blue, green, red, 0 to 255
                clips = np.stack([faces[i : i + WINDOW, ..., ::-1] for i in at]).astype(np.float32)
                video.append(self._net["lip"](torch.from_numpy(clips).permute(0, 4, 1, 2, 3)))
                first = [i * COLUMNS_PER_PICTURE for i in at]
                heard = torch.stack([columns[:, c : c + WINDOW * COLUMNS_PER_PICTURE] for c in first])
                audio.append(self._net["audio"](heard[:, None]))
        return sync_of(torch.cat(video), torch.cat(audio))


def _network(tensors: Mapping[str, Tensor], path: Path) -> Any:
    """Modules under the names of the published checkpoint (netcnnlip, netfclip, netcnnaud, netfcaud)."""
    import torch
    from torch import nn

    def width(name: str) -> int:
        if name not in tensors:
            raise InputError(f"{path}: lacks {name!r}; want the weights of SyncNet, version 2")
        return len(tensors[name])

    def convolutions(net: str, conv: Any, norm: Any, plan: list[tuple[Any, ...]]) -> Any:
        layers: list[Any] = []
        channels = 1 if conv is nn.Conv2d else 3
        for kernel, stride, padding, pool in plan:
            out = width(f"{net}.{len(layers)}.weight")
            layers += [conv(channels, out, kernel, stride, padding), norm(out), nn.ReLU()]
            layers += [pool] if pool is not None else []
            channels = out
        return nn.Sequential(*layers)

    def head(net: str, inside: int) -> Any:
        hidden, out = width(f"{net}.0.weight"), width(f"{net}.3.weight")
        return nn.Sequential(nn.Linear(inside, hidden), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Linear(hidden, out))

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.netcnnaud = convolutions("netcnnaud", nn.Conv2d, nn.BatchNorm2d, audio_plan)
            self.netcnnlip = convolutions("netcnnlip", nn.Conv3d, nn.BatchNorm3d, lip_plan)
            self.netfcaud = head("netfcaud", len(tensors["netcnnaud.18.weight"]))
            self.netfclip = head("netfclip", len(tensors["netcnnlip.18.weight"]))

        def __getitem__(self, name: str) -> Any:
            cnn, fc = (self.netcnnlip, self.netfclip) if name == "lip" else (self.netcnnaud, self.netfcaud)
            return lambda x: fc(torch.flatten(cnn(x), 1))

    flat = (1, 3, 3)
    audio_plan = [
        ((3, 3), 1, 1, nn.MaxPool2d(1, 1)),
        ((3, 3), 1, 1, nn.MaxPool2d((3, 3), (1, 2))),
        ((3, 3), 1, 1, None),
        ((3, 3), 1, 1, None),
        ((3, 3), 1, 1, nn.MaxPool2d(3, 2)),
        ((5, 4), 1, 0, None),
    ]
    lip_plan = [
        ((5, 7, 7), (1, 2, 2), 0, nn.MaxPool3d(flat, (1, 2, 2))),
        ((1, 5, 5), (1, 2, 2), (0, 1, 1), nn.MaxPool3d(flat, (1, 2, 2), (0, 1, 1))),
        (flat, 1, (0, 1, 1), None),
        (flat, 1, (0, 1, 1), None),
        (flat, 1, (0, 1, 1), nn.MaxPool3d(flat, (1, 2, 2))),
        ((1, 6, 6), 1, 0, None),
    ]
    return Net()


def sync_crops(pictures: list[Picture], landmarks: Points) -> NDArray[np.uint8] | None:
    """Faces as SyncNet saw them, uint8 [t 224 224 3]; frames without a face take their box from those around.

    None where no frame has a face.
    """
    import cv2

    boxes = np.array([_centre_and_half(p) for p in landmarks])
    known = ~np.isnan(boxes).any(1)
    if not known.any():
        return None
    at = np.arange(len(boxes))
    boxes = np.stack([_median(np.interp(at, at[known], column[known])) for column in boxes.T], 1)
    out = np.empty((len(pictures), CROP_PX, CROP_PX, 3), np.uint8)
    for i, (picture, (x, y, half)) in enumerate(zip(pictures, boxes, strict=True)):
        pad = math.ceil(half * (1 + 2 * _MARGIN))
        framed = np.pad(picture, ((pad, pad), (pad, pad), (0, 0)), constant_values=110)
        left, top = round(x + pad - half * (1 + _MARGIN)), round(y + pad - half)
        side = round(2 * half * (1 + _MARGIN))
        out[i] = cv2.resize(framed[max(top, 0) : top + side, max(left, 0) : left + side], (CROP_PX, CROP_PX))
    return out


def _centre_and_half(points: Points) -> tuple[float, float, float]:
    (x0, y0), (x1, y1) = points[FACE].min(0), points[FACE].max(0)
    return (x0 + x1) / 2, (y0 + y1) / 2, max(x1 - x0, y1 - y0) / 2


def _median(values: NDArray[np.float64], size: int = 13) -> NDArray[np.float64]:
    padded = np.pad(values, size // 2, mode="edge")
    return np.asarray(np.median(np.lib.stride_tricks.sliding_window_view(padded, size), axis=-1))


def mfcc(sound: NDArray[np.float32]) -> NDArray[np.float64]:
    """13 mel-frequency cepstral coefficients every 10 ms, [t 13], as python_speech_features computes them.

    25 ms windows without a taper, 512-point spectrum, 26 filters, pre-emphasis 0.97, cepstral lifter 22, the first
    coefficient replaced by the log energy; samples count as 16-bit integers.
    """
    window, hop, size, filters, kept, lifter = 400, 160, 512, 26, 13, 22
    samples = sound.astype(np.float64) * 32768
    samples = np.append(samples[:1], samples[1:] - 0.97 * samples[:-1])
    count = 1 + max(0, math.ceil((len(samples) - window) / hop))
    samples = np.pad(samples, (0, (count - 1) * hop + window - len(samples)))
    framed = np.lib.stride_tricks.sliding_window_view(samples, window)[::hop]
    power = np.abs(np.fft.rfft(framed, size)) ** 2 / size
    tiny = np.finfo(float).eps
    energy = np.log(np.maximum(power.sum(1), tiny))
    bank = np.log(np.maximum(power @ _mel_bank(filters, size).T, tiny))
    n = np.arange(filters)
    basis = np.cos(np.pi / filters * (n + 0.5) * np.arange(kept)[:, None]) * math.sqrt(2 / filters)
    basis[0] /= math.sqrt(2)
    found = (bank @ basis.T) * (1 + lifter / 2 * np.sin(np.pi * np.arange(kept) / lifter))
    found[:, 0] = energy
    return found


def _mel_bank(filters: int, size: int) -> NDArray[np.float64]:
    top = 2595 * math.log10(1 + SYNC_RATE / 2 / 700)
    hz = 700 * (10 ** (np.linspace(0, top, filters + 2) / 2595) - 1)
    edges = np.floor((size + 1) * hz / SYNC_RATE)
    k = np.arange(size // 2 + 1)
    rise = (k - edges[:-2, None]) / np.maximum(edges[1:-1] - edges[:-2], 1)[:, None]
    fall = (edges[2:, None] - k) / np.maximum(edges[2:] - edges[1:-1], 1)[:, None]
    return np.where(k < edges[1:-1, None], rise, fall).clip(0)
