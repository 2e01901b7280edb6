"""The render backend of docs/extend/backend.md."""

from __future__ import annotations

import pytest
import torch
from render_scenes import FIELDS, in_double, make_cameras, make_splats, run

from gsth import render
from gsth.render import torch_ref


def test_it_is_the_definition_without_its_rounding(example, monkeypatch: pytest.MonkeyPatch) -> None:
    exact = example("render", "exact")
    splats, cameras, background = make_splats(40, bases=4), make_cameras(40, 32, 2), torch.rand(3)
    want, want_grads = run(torch_ref, *in_double(splats, cameras), background.double(), True)
    got, got_grads = run(exact, splats, cameras, background, True)
    rough, _ = run(torch_ref, splats, cameras, background, True)
    assert got.rgb.dtype == torch.float32
    assert (got.rgb.double() - want.rgb).abs().max() < (rough.rgb.double() - want.rgb).abs().max()
    for name in (*FIELDS, "background", "viewmats", "grad_px"):
        assert float(want_grads[name].abs().max()) > 0
        torch.testing.assert_close(got_grads[name].double(), want_grads[name], rtol=1e-5, atol=1e-5)

    monkeypatch.setitem(render._BACKENDS, "exact", exact)
    assert render.backends()["exact"] is None and render.backends("mps")["exact"] is not None
    chosen = render.render(splats, cameras, background=background, backend="exact", antialiased=True)
    torch.testing.assert_close(chosen.rgb, got.rgb)
