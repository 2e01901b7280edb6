"""The speech network of ``gsth.drive`` with a person's layer, rebuilt from an avatar's arrays for other engines.

It is made of library convolutions and keeps all memory in one vector, which is what exporters and runtimes handle best.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from gsth import audio
from gsth.avatar import Avatar
from gsth.errors import InputError
from gsth.export import _bin

_WARM_UP_STEPS = 25
"""Silence that the network hears before a sound starts, so that it begins at rest and not in its padding."""


class StreamingVoice(nn.Module):
    """Features [1 c 64] and state [1 s] to expressions [1 c/2 e] and the state that goes on; awake throughout."""

    def __init__(self, arrays: Mapping[str, Tensor], header: Mapping[str, Any]) -> None:
        """Take an avatar's voice and what ``_bin.voice_layout`` says of it."""
        super().__init__()
        for name, value in arrays.items():
            self.register_buffer(name.replace(".", "_"), value)
        self._header = header
        self._width = len(arrays["net.norm.weight"])
        self._sizes = (4 * audio.BANDS, *(2 * d * self._width for d in header["dilations"]))

    @classmethod
    def of(cls, avatar: Avatar) -> StreamingVoice:
        """Raises InputError where the avatar has no voice."""
        layout = _bin.voice_layout(avatar.speech)
        if layout is None:
            raise InputError("this avatar has no voice to export; train it from a clip with sound")
        arrays = {name: avatar.speech[name].detach().float().cpu() for name in layout["arrays"]}
        arrays["places"] = functional.one_hot(avatar.speech["moved"].long(), len(arrays["rest"])).float()
        return cls(arrays, layout["header"]).eval()

    def start(self) -> Tensor:
        """The state before a sound, [1 s]."""
        silence = torch.full((1, 2 * _WARM_UP_STEPS, audio.BANDS), audio.FLOOR_FEATURE)
        with torch.no_grad():
            return self(silence, torch.zeros(1, sum(self._sizes)))[1]

    def forward(self, features: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """c is even and at least 2."""
        histories = state.split(self._sizes, 1)
        x, kept = self._convolved("net.stem.linear", features, histories[0], 2, 1)
        new = [kept]
        for i, dilation in enumerate(self._header["dilations"]):
            at = f"net.blocks.{i}"
            y = self._normed(f"{at}.norm", x)
            y, kept = self._convolved(f"{at}.conv.linear", y, histories[1 + i], 1, dilation)
            x = x + self._dense(f"{at}.mix", functional.gelu(y))
            new.append(kept)
        return self._face(self._normed("net.norm", x)), torch.cat(new, 1)

    def _face(self, hidden: Tensor) -> Tensor:
        """Expressions of hidden states, as drivers make them of a mouth that is awake."""
        press = self._dense("net.head", hidden)[..., self._header["press"], None] / self._header["full_press"]
        begin, met = self._header["closure"]
        shut = ((press - begin) / (met - begin)).clamp(0, 1)
        moved = functional.linear(hidden, self._of("weight"), self._of("bias"))
        by = moved + (self._of("closed") - moved) * (shut * shut * (3 - 2 * shut))
        # A product with zeros and ones puts each in its place, and exports to ONNX, which indexed sums do not.
        return (self._of("rest") + by @ self._of("places")).clamp(0, 1)

    def _of(self, name: str) -> Tensor:
        return getattr(self, name.replace(".", "_"))

    def _dense(self, name: str, x: Tensor) -> Tensor:
        return functional.linear(x, self._of(f"{name}.weight"), self._of(f"{name}.bias"))

    def _normed(self, name: str, x: Tensor) -> Tensor:
        return functional.layer_norm(x, (self._width,), self._of(f"{name}.weight"), self._of(f"{name}.bias"))

    def _convolved(self, name: str, x: Tensor, history: Tensor, stride: int, dilation: int) -> tuple[Tensor, Tensor]:
        """[1 t c] to [1 t/stride width], and what to remember, flat."""
        channels, weight = x.shape[2], self._of(f"{name}.weight")
        before = history.reshape(1, history.shape[1] // channels, channels)
        joined = torch.cat((before, x), 1)
        kernel = weight.reshape(self._width, weight.shape[1] // channels, channels).transpose(1, 2)
        bias = self._of(f"{name}.bias")
        y = functional.conv1d(joined.transpose(1, 2), kernel, bias, stride=stride, dilation=dilation)
        return y.transpose(1, 2), joined[:, -before.shape[1] :].reshape(1, history.shape[1])
