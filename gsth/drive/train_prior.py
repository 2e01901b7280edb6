"""Trains the speech prior that gsth ships: ``python -m gsth.drive.train_prior``.

Synthesises speech of many voices and languages with known mouth movements (``_corpus``), trains the causal network on
augmented crops of it, scores it on voices that it never heard, and writes weights and recipe into ``assets``.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from itertools import chain
from pathlib import Path

import torch
from torch import Tensor

from gsth.drive import _corpus
from gsth.drive._corpus import Example, Sources
from gsth.drive._speech_net import DELAY, NAMES, STEPS_HZ, WEIGHTS, SpeechNet, hidden_states, pack


@dataclass(frozen=True)
class Recipe:
    """Everything that the weights follow from."""

    seed: int = 7
    utterances: int = 1300
    """Of about 4.5 s each."""
    copies: int = 3
    """How many rooms, microphones and vocal tracts each is heard in."""
    validation: int = 60
    """Utterances by held-out voices."""
    steps: int = 8000
    batch: int = 12
    crop_s: float = 2.4
    rate: float = 3e-3
    """Peak learning rate; a cosine brings it to 0."""
    velocity: float = 1.0
    """Weight of the error of differences between steps, which keeps closures sharp."""
    opening: float = 4.0
    """Weight of the error of the mouth opening as a whole."""


_WARM_STEPS = 20
"""Steps at the start of a crop that are not scored, because the network has not heard what came before them."""
_OPENING = {
    "jawOpen": 1.0,
    "mouthClose": -1.0,
    "mouthFunnel": 0.35,
    "mouthPucker": -0.09,
    "mouthLowerDownLeft": 0.12,
    "mouthUpperUpLeft": 0.15,
    "mouthRollLower": -0.06,
}
"""How far curves part the lips of the built-in head, relative to the jaw; left stands for both sides."""


def corpus(seed: int, count: int, sources: Sources, workers: int, copies: int = 1) -> list[Example]:
    """``count`` utterances in ``copies`` ways each; words, voices and rooms are the same for any number of workers."""
    make: Callable[[int], list[Example]] = partial(_corpus.examples, sources=sources, copies=copies)
    with ProcessPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        return list(chain.from_iterable(pool.map(make, range(seed, seed + count), chunksize=16)))


def opening(curves: Tensor) -> Tensor:
    """How far the lips part, roughly, from curves [... 20] in the order of ``NAMES``."""
    return sum((curves[..., NAMES.index(n)] * w for n, w in _OPENING.items()), torch.zeros(curves.shape[:-1]))


def correlation(a: Tensor, b: Tensor) -> float:
    """Pearson's r of two series."""
    return float(torch.corrcoef(torch.stack((a.flatten(), b.flatten())).double())[0, 1])


def loss(predicted: Tensor, wanted: Tensor, scale: Tensor, recipe: Recipe) -> Tensor:
    """Squared errors of curves, their velocity and the mouth opening; curves [b k 20]."""
    error = (predicted - wanted) / scale
    gap = (opening(predicted) - opening(wanted)) / scale[NAMES.index("jawOpen")]
    level = error.square().mean() + recipe.opening / len(NAMES) * gap.square().mean()
    return level + recipe.velocity * error.diff(dim=1).square().mean()


def fit(data: Sequence[Example], recipe: Recipe, report: Callable[[int, float], None]) -> SpeechNet:
    """The trained net; deterministic for one number of threads."""
    torch.manual_seed(recipe.seed)
    random = torch.Generator().manual_seed(recipe.seed)
    net = SpeechNet().train()
    steps = int(recipe.crop_s * STEPS_HZ)
    data = [e for e in data if len(e.curves) >= steps]
    scale = torch.cat([e.curves for e in data]).std(0) + 0.03
    optimizer = torch.optim.AdamW(net.parameters(), recipe.rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.rate, total_steps=recipe.steps, pct_start=0.08)
    running = 0.0
    for step in range(recipe.steps):
        chosen = [data[i] for i in torch.randint(len(data), (recipe.batch,), generator=random).tolist()]
        starts = [int(torch.randint(len(e.curves) - steps + 1, (1,), generator=random)) for e in chosen]
        features = torch.stack([e.features[2 * s : 2 * (s + steps)] for e, s in zip(chosen, starts, strict=True)])
        wanted = torch.stack([e.curves[s : s + steps] for e, s in zip(chosen, starts, strict=True)])
        hidden, _ = net(_corpus.augmented(features, random))
        predicted = net.curves(hidden[:, DELAY + _WARM_STEPS :])
        value = loss(predicted, wanted[:, _WARM_STEPS : steps - DELAY], scale, recipe)
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        running = 0.98 * running + 0.02 * value.item() if step else value.item()
        if (step + 1) % 100 == 0:
            report(step + 1, running)
    return net.eval().requires_grad_(False)


def scores(net: SpeechNet, data: Sequence[Example]) -> dict[str, float]:
    """On utterances never heard: correlation of the mouth opening, of all curves, and error of the curves."""
    pairs = [(net.curves(hidden_states(net, e.features)).clamp(0, 1), e.curves) for e in data]
    predicted, wanted = (torch.cat(part) for part in zip(*pairs, strict=True))
    each = [correlation(predicted[:, i], wanted[:, i]) for i in range(len(NAMES))]
    return {
        "opening_correlation": round(correlation(opening(predicted), opening(wanted)), 4),
        "mean_curve_correlation": round(sum(each) / len(each), 4),
        "mean_absolute_error": round(float((predicted - wanted).abs().mean()), 5),
    }


def main() -> None:
    """Train, score and write the weights with their recipe."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=WEIGHTS)
    parser.add_argument("--steps", type=int, default=Recipe.steps)
    parser.add_argument("--utterances", type=int, default=Recipe.utterances)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument(
        "--voice",
        action="append",
        default=[],
        help="hibari, a Piper voice's file, or Kokoro's model and @; may be repeated",
    )
    args = parser.parse_args()
    from safetensors.torch import save_file

    recipe = Recipe(steps=args.steps, utterances=args.utterances)
    # Steps are small: one thread is nearly as fast as two, and makes the result independent of the machine's load.
    torch.set_num_threads(1)
    begun = time.perf_counter()
    sources, unheard = Sources(_corpus.training_variants(), tuple(args.voice)), Sources(tuple(sorted(_corpus.HELD_OUT)))
    data = corpus(recipe.seed * 100_000, recipe.utterances, sources, args.workers, recipe.copies)
    held_out = corpus(recipe.seed * 100_000 + 50_000, recipe.validation, unheard, args.workers)
    minutes = sum(len(e.curves) for e in data) / STEPS_HZ / 60
    print(f"{minutes:.1f} minutes of speech in {time.perf_counter() - begun:.0f} s", flush=True)
    net = fit(data, recipe, lambda step, value: print(f"step {step}: loss {value:.4f}", flush=True))
    result = {
        "recipe": asdict(recipe),
        "minutes_of_speech": round(minutes, 1),
        "training_s": round(time.perf_counter() - begun),
        "parameters": sum(p.numel() for p in net.parameters()),
        "natural_voices": [Path(v).name for v in args.voice],
        "held_out_voices": sorted(_corpus.HELD_OUT),
        "scores": scores(net, held_out),
    }
    part = args.out.with_suffix(".part")
    save_file(pack(net), part)
    part.replace(args.out)
    args.out.with_suffix(".json").write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
