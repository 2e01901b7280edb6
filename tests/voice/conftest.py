"""A made-up Piper voice: every token lasts four frames and sounds like a hum."""

from __future__ import annotations

import json
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def piper_voice(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its model file; onnx makes it."""
    onnx = pytest.importorskip("onnx")
    h, t = onnx.helper, onnx.TensorProto
    one = [h.make_tensor(n, k, [], [v]) for n, k, v in (("zero", t.FLOAT, 0.0), ("four", t.FLOAT, 3.6))]
    rate = h.make_tensor("hop", t.INT64, [1], [256])
    hum = h.make_tensor("hum", t.FLOAT, [1], [0.1])
    nodes = [
        h.make_node("Cast", ["input"], ["x"], to=t.FLOAT),
        h.make_node("Mul", ["x", "zero"], ["nothing"]),
        h.make_node("Add", ["nothing", "four"], ["long"]),
        h.make_node("Slice", ["scales", "a", "b"], ["slow"]),
        h.make_node("Mul", ["long", "slow"], ["timed"]),
        h.make_node("Ceil", ["timed"], ["/Ceil_output_0"]),
        h.make_node("ReduceSum", ["/Ceil_output_0"], ["frames"], keepdims=0),
        h.make_node("Cast", ["frames"], ["whole"], to=t.INT64),
        h.make_node("Mul", ["whole", "hop"], ["samples"]),
        h.make_node("Expand", ["hum", "samples"], ["output"]),
    ]
    ends = [h.make_tensor("a", t.INT64, [1], [1]), h.make_tensor("b", t.INT64, [1], [2])]
    graph = h.make_graph(
        nodes,
        "piper",
        [
            h.make_tensor_value_info("input", t.INT64, [1, "n"]),
            h.make_tensor_value_info("input_lengths", t.INT64, [1]),
            h.make_tensor_value_info("scales", t.FLOAT, [3]),
        ],
        [h.make_tensor_value_info("output", t.FLOAT, ["s"])],
        [*one, rate, hum, *ends],
    )
    path = tmp_path_factory.mktemp("voice") / "made_up.onnx"
    path.write_bytes(h.make_model(graph, opset_imports=[h.make_opsetid("", 18)], ir_version=9).SerializeToString())
    ids = {c: [i] for i, c in enumerate("_^$ .,abdefhijklmnopstuvwzæɐɑɔəɚɛɡɪŋɹʃʊʌʒθðˈˌː")}
    settings = {"audio": {"sample_rate": 22050}, "espeak": {"voice": "en-us"}, "phoneme_id_map": ids}
    path.with_name(path.name + ".json").write_text(json.dumps(settings))
    return path
