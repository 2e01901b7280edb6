"""The speech network: log-mel features in, mouth curves out; causal, so that it also runs while someone speaks.

A convolution with stride 2 takes 100 Hz features to 50 Hz; residual blocks of dilated causal convolutions (a TCN: Bai,
Kolter and Koltun 2018, arXiv:1803.01271) follow, and a linear layer gives the curves. Step k describes the time
[k / 50, (k + 1) / 50) and comes out ``DELAY`` steps later: that is the look-ahead.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from gsth import audio, speech

STEPS_HZ = speech.NET.steps_hz
DELAY = speech.NET.delay
"""Look-ahead in steps of 20 ms."""
LOOK_AHEAD_S = (DELAY + 1) / STEPS_HZ + audio.MARGIN / audio.RATE
"""Latest sound that a frame depends on, counted from the frame's middle, s: delay, half a step each for the
interpolation and for the step's own length, and the window of the last column."""
NAMES = speech.NET.curves
WEIGHTS = Path(__file__).parent / "assets" / "speech_prior.safetensors"
_WARM_UP_S = 0.5
"""Silence that the network hears before a sound starts, so that it begins at rest and not in its padding."""
_KERNEL = 3


@dataclass(frozen=True)
class NetSize:
    """Shape of the network; the shipped weights have the default."""

    width: int = 112
    dilations: tuple[int, ...] = speech.NET.dilations
    dropout: float = 0.1


class CausalConv(nn.Module):
    """A convolution over time that hears only the past, and can be fed piece by piece; layout [b t c].

    It is a matrix product over shifted copies of its input, which on CPUs is faster than a library convolution of this
    size with the transposes that one needs. ``history`` is the tail of earlier input; at the start it is zeros.
    """

    def __init__(self, channels_in: int, channels: int, kernel: int, stride: int = 1, dilation: int = 1) -> None:
        super().__init__()
        self.linear = nn.Linear(channels_in * kernel, channels)
        self.kernel, self.stride, self.dilation = kernel, stride, dilation
        self.reach = (kernel - 1) * dilation + 1 - stride
        """How many earlier inputs the first output of a piece hears."""

    def forward(self, x: Tensor, history: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """x [b t c] to [b t/stride channels], and the history for the next piece (t a multiple of the stride)."""
        if history is None:
            history = x.new_zeros(x.shape[0], self.reach, x.shape[2])
        joined = torch.cat((history, x), 1)
        if torch.is_grad_enabled():
            last = (x.shape[1] // self.stride - 1) * self.stride
            starts = range(0, self.kernel * self.dilation, self.dilation)
            taps = torch.cat([joined[:, s : s + last + 1 : self.stride] for s in starts], 2)
        else:  # the same in two calls instead of seven, which short pieces feel; gradients through it would be slow
            batch, _, channels = joined.shape
            shape = (batch, x.shape[1] // self.stride, self.kernel, channels)
            across, along, _ = joined.stride()
            taps = joined.as_strided(shape, (across, self.stride * along, self.dilation * along, 1)).flatten(2)
        return _dense(taps, self.linear), joined[:, joined.shape[1] - self.reach :]


def _dense(x: Tensor, layer: nn.Linear) -> Tensor:
    """``layer(x)`` without the module's call, which costs as much as the product of a short piece."""
    return nn.functional.linear(x, layer.weight, layer.bias)


def _normed(x: Tensor, layer: nn.LayerNorm) -> Tensor:
    return nn.functional.layer_norm(x, x.shape[-1:], layer.weight, layer.bias, layer.eps)


class _Block(nn.Module):
    """x + W gelu(conv(norm(x))): one residual block; the norm is over channels, so it needs no other time."""

    def __init__(self, width: int, dilation: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.conv = CausalConv(width, width, _KERNEL, dilation=dilation)
        self.mix = nn.Linear(width, width)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor, history: Tensor | None) -> tuple[Tensor, Tensor]:
        y, tail = self.conv.forward(_normed(x, self.norm), history)
        y = _dense(nn.functional.gelu(y), self.mix)
        return x + (self.drop(y) if self.training else y), tail


class SpeechNet(nn.Module):
    """Log-mel features [b t 64] at 100 Hz to hidden states [b t/2 width]; ``head`` makes curves of them."""

    def __init__(self, size: NetSize | None = None) -> None:
        super().__init__()
        self.size = size or NetSize()
        width = self.size.width
        self.stem = CausalConv(audio.BANDS, width, 6, stride=2)
        self.blocks = nn.ModuleList(_Block(width, d, self.size.dropout) for d in self.size.dilations)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, len(NAMES))

    def forward(self, features: Tensor, state: list[Tensor] | None = None) -> tuple[Tensor, list[Tensor]]:
        """Hidden states and the state that goes on; step k of the output describes the time of step k - DELAY."""
        histories: list[Tensor | None] = [None] * (1 + len(self.blocks)) if state is None else list(state)
        x, kept = self.stem.forward(features, histories[0])
        new = [kept]
        for block, history in zip(self.blocks, histories[1:], strict=True):
            x, kept = block.forward(x, history)
            new.append(kept)
        return _normed(x, self.norm), new

    def curves(self, hidden: Tensor) -> Tensor:
        """Curves [... 20] in the order of ``NAMES``; linear in the hidden state and not yet held to 0..1."""
        return self.head(hidden)


def warm_state(net: SpeechNet) -> list[Tensor]:
    """The net's memory after some silence: where every sound begins."""
    silence = torch.full((1, int(_WARM_UP_S * audio.COLUMNS_HZ), audio.BANDS), audio.FLOOR_FEATURE)
    with torch.no_grad():
        return net(silence)[1]


def hidden_states(net: SpeechNet, features: Tensor) -> Tensor:
    """Hidden states of a whole sound at 50 Hz, aligned with it: features [2 k, 64] to [k, width].

    Args:
        net: In eval mode.
        features: ``audio.log_mel`` at 100 Hz; a last odd column is completed with silence.
    """
    stream = HiddenStream(net)
    return torch.cat((stream.push(features), stream.finish()))


class HiddenStream:
    """Runs a net piece by piece; what comes out joined equals the whole at once.

    Step k of the output comes as soon as the features of step k + DELAY are in.
    """

    def __init__(self, net: SpeechNet) -> None:
        self._net = net
        self._pending = torch.empty(0, audio.BANDS)
        self._wanted = 0
        self._state = warm_state(net)
        self._skip = DELAY

    def push(self, features: Tensor) -> Tensor:
        """Feed columns [c 64], c >= 0; returns the steps that became known, [k width], k >= 0."""
        self._wanted += len(features)
        return self._feed(features)

    def finish(self) -> Tensor:
        """The remaining steps, after the last column: silence follows."""
        odd = self._wanted % 2
        return self._feed(torch.full((2 * DELAY + odd, audio.BANDS), audio.FLOOR_FEATURE))

    def _feed(self, features: Tensor) -> Tensor:
        joined = torch.cat((self._pending, features))
        even = len(joined) // 2 * 2
        self._pending = joined[even:]
        if even == 0:
            return torch.empty(0, self._net.size.width)
        with torch.no_grad():
            hidden, self._state = self._net(joined[None, :even], self._state)
        skipped = min(self._skip, hidden.shape[1])
        self._skip -= skipped
        return hidden[0, skipped:]


class PictureClock:
    """Steps at 50 Hz in, values at the middle of each picture out (linear between the middles of two steps)."""

    def __init__(self, fps: float) -> None:
        self._fps = fps
        self._steps: Tensor | None = None
        self._first = 0
        """Number of the first step still held."""
        self._next = 0
        """Number of the next picture."""

    def push(self, steps: Tensor) -> Tensor:
        """Feed steps [k d], k >= 0; returns the pictures that became known, [t d]."""
        held = steps if self._steps is None else torch.cat((self._steps, steps))
        self._steps = held
        # Picture i lies at step position p = (i + 1/2) * 50 / fps - 1/2 and needs the steps on both sides.
        last = self._first + len(held) - 1
        stop = self._next
        while self._position(stop) <= last:
            stop += 1
        return self._take(stop)

    def finish(self, frames: int) -> Tensor:
        """The pictures up to ``frames``; past the last step its value stays."""
        return self._take(max(frames, self._next))

    def _position(self, picture: int) -> float:
        return (picture + 0.5) * STEPS_HZ / self._fps - 0.5

    def _take(self, stop: int) -> Tensor:
        steps = self._steps
        if steps is None:
            raise RuntimeError("no steps were pushed")
        if stop == self._next:
            return steps[:0]
        if len(steps) == 0:
            raise RuntimeError(f"pictures up to {stop} were asked for, but the steps pushed so far are empty")
        at = torch.tensor([self._position(i) for i in range(self._next, stop)], dtype=torch.float64) - self._first
        at = at.clamp(0, len(steps) - 1)
        low = at.floor().long()
        high = (low + 1).clamp_max(len(steps) - 1)
        amount = (at - low).to(steps.dtype)[:, None]
        out = steps[low] * (1 - amount) + steps[high] * amount
        self._next = stop
        drop = max(0, min(int(max(self._position(stop), 0)) - self._first, len(steps) - 1))
        self._steps, self._first = steps[drop:], self._first + drop
        return out


def at_pictures(steps: Tensor, fps: float, frames: int) -> Tensor:
    """Steps [k d] of a whole sound at the middle of each of ``frames`` pictures, [frames d]."""
    clock = PictureClock(fps)
    return torch.cat((clock.push(steps), clock.finish(frames)))[:frames]


def pack(net: SpeechNet) -> dict[str, Tensor]:
    """The weights as float16 arrays, for a safetensors file."""
    return {name: value.detach().half().contiguous() for name, value in net.state_dict().items()}


def unpack(arrays: Mapping[str, Tensor]) -> SpeechNet:
    """A net in eval mode from ``pack``'s arrays; its size is read off their shapes.

    Raises:
        KeyError: An array is missing.
        RuntimeError: The arrays belong to another kind of net.
    """
    width = arrays["norm.weight"].shape[0]
    blocks = max(1, sum(name.endswith(".mix.weight") for name in arrays))  # none is no net: what is missing is refused
    net = SpeechNet(NetSize(width=width, dilations=speech.NET.dilations[:blocks]))
    net.load_state_dict({name: value.float() for name, value in arrays.items()})
    return net.eval().requires_grad_(False)


def deepened(net: SpeechNet, size: NetSize | None = None) -> SpeechNet:
    """A net of this size, which has the net's blocks and more, that says what the net says: new blocks add nothing yet.

    Chen et al. 2016, "Net2Net" (arXiv:1511.05641), section 2.3.

    Raises:
        RuntimeError: It is no deeper net of the same kind.
    """
    deep = SpeechNet(size)
    for block in deep.blocks[len(net.blocks) :]:
        mix = cast(_Block, block).mix
        nn.init.zeros_(mix.weight)
        nn.init.zeros_(mix.bias)
    deep.load_state_dict(deep.state_dict() | net.state_dict())
    return deep


@cache
def prior() -> SpeechNet:
    """The shipped network, trained on synthesised speech of many voices (``python -m gsth.drive.train_prior``)."""
    from safetensors.torch import load_file

    return unpack(load_file(WEIGHTS))


def hear(samples: np.ndarray, fps: float, frames: int) -> Tensor:
    """What the network hears in each of ``frames`` pictures of a sound (mono, 16 kHz): hidden states [frames width].

    These are the audio features that drivers give a Motion and that an avatar's audio field learns from.
    """
    return at_pictures(hidden_states(prior(), audio.log_mel(samples)), fps, frames)
