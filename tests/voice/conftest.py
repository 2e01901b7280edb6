"""Made-up voices of Piper and Kokoro: every token lasts four frames and sounds like a hum."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
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


@pytest.fixture(scope="session")
def kokoro_voice(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its model file, with two voices beside it; a voice is as loud as the mean of its numbers."""
    onnx = pytest.importorskip("onnx")
    h, t = onnx.helper, onnx.TensorProto
    constants = [
        h.make_tensor("zero", t.FLOAT, [], [0.0]),
        h.make_tensor("four", t.FLOAT, [], [4.0]),
        h.make_tensor("hop", t.INT64, [1], [600]),
        h.make_tensor("one", t.FLOAT, [], [1.0]),
        h.make_tensor("most", t.FLOAT, [], [50.0]),
    ]
    nodes = [
        h.make_node("Cast", ["tokens"], ["x"], to=t.FLOAT),
        h.make_node("Mul", ["x", "zero"], ["nothing"]),
        h.make_node("Add", ["nothing", "four"], ["long"]),
        h.make_node("Div", ["long", "speed"], ["timed"]),
        h.make_node("Round", ["timed"], ["round"]),
        h.make_node("Clip", ["round", "one", "most"], ["/encoder/Clip_output_0"]),
        h.make_node("ReduceSum", ["/encoder/Clip_output_0"], ["frames"], keepdims=0),
        h.make_node("Cast", ["frames"], ["whole"], to=t.INT64),
        h.make_node("Mul", ["whole", "hop"], ["samples"]),
        h.make_node("ReduceMean", ["style"], ["hum"], keepdims=0),
        h.make_node("Expand", ["hum", "samples"], ["audio"]),
    ]
    inputs = [("tokens", t.INT64, [1, "n"]), ("style", t.FLOAT, [1, 256]), ("speed", t.FLOAT, [1])]
    graph = h.make_graph(
        nodes,
        "kokoro",
        [h.make_tensor_value_info(*i) for i in inputs],
        [h.make_tensor_value_info("audio", t.FLOAT, ["s"])],
        constants,
    )
    path = tmp_path_factory.mktemp("kokoro") / "kokoro.onnx"
    path.write_bytes(h.make_model(graph, opset_imports=[h.make_opsetid("", 18)], ir_version=9).SerializeToString())
    loud, soft = (np.full((510, 1, 256), level, np.float32) for level in (0.3, 0.1))
    np.savez(path.with_name("voices.npz"), af_loud=loud, am_soft=soft)
    return path
