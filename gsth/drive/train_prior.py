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
from gsth.drive._speech_net import DELAY, NAMES, STEPS_HZ, WEIGHTS, SpeechNet, deepened, hidden_states, pack, unpack


@dataclass(frozen=True)
class Recipe:
    """Everything that the weights follow from."""

    seed: int = 7
    groups: tuple[tuple[int, tuple[str, ...]], ...] = ((1300, ()),)
    """How many utterances, of about 4.5 s each, by which natural voices beside those of espeak-ng, and from which texts
    (``.txt``) these read; each group has sentences of its own."""
    copies: int = 3
    """How many rooms, microphones and vocal tracts each is heard in."""
    validation: int = 60
    """Utterances by voices that training never hears, each in the vocal tracts of ``_TRACTS``."""
    steps: int = 8000
    batch: int = 12
    crop_s: float = 2.4
    rate: float = 3e-3
    """Peak learning rate; a cosine brings it to 0."""
    velocity: float = 1.0
    """Weight of the error of differences between steps, which keeps closures sharp."""
    opening: float = 4.0
    """Weight of the error of the mouth opening as a whole."""
    spread: float = 1.5
    """Weight of the error of how far things move in each crop; without it a net moves less where it is unsure."""


_TRACTS = (0.8, 1.0, 1.25)
"""Lengths in which held-out voices are scored, relative to their own."""
_GROUP_SEEDS, _HELD_OUT_SEEDS = 10_000, 50_000
_STILL = 0.2
"""Deviations (of the whole corpus') that count as none: what hardly moves in a crop has no spread to match."""
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


def _with_opening(curves: Tensor, scale: Tensor) -> Tensor:
    """Curves in units of ``scale`` and, as one more, the opening in that of jawOpen, [b k 21]."""
    gap = opening(curves * scale) / scale[NAMES.index("jawOpen")]
    return torch.cat((curves, gap[..., None]), -1)


def loss(predicted: Tensor, wanted: Tensor, scale: Tensor, recipe: Recipe) -> Tensor:
    """Squared errors of curves, their velocity, the mouth opening, and the spread of each in a crop; curves [b k 20].

    Squared errors alone are smallest where the net gives the mean of what may be right, which moves less than any of
    it. So the spread has a price of its own, on the logarithm of its ratio to the true one.
    """
    shares = torch.tensor([1.0] * len(NAMES) + [recipe.opening]) / len(NAMES)
    ours, true = (_with_opening(curves / scale, scale) for curves in (predicted, wanted))
    level = (ours - true).square().mean((0, 1)) @ shares
    ratio = torch.log((ours.var(1) + _STILL**2) / (true.var(1) + _STILL**2)) / 2
    speed = (ours - true)[..., : len(NAMES)].diff(dim=1).square().mean()
    return level + recipe.velocity * speed + recipe.spread * ratio.square().mean(0) @ shares


def fit(
    data: Sequence[Example], recipe: Recipe, report: Callable[[int, float], None], start: SpeechNet | None = None
) -> SpeechNet:
    """The trained net, from noise or from ``start``, which may have fewer blocks; deterministic on one thread."""
    torch.manual_seed(recipe.seed)
    random = torch.Generator().manual_seed(recipe.seed)
    net = SpeechNet() if start is None else deepened(start)
    net.train()
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
    """On utterances never heard: correlation of the mouth opening, of all curves, and error of the curves.

    ``opening_in_other_tracts`` is the first of these in the other vocal tracts, their mean; ``opening_spread`` how
    widely the opening varies, over how widely it should.
    """

    def heard(tract: float) -> Tensor:
        hidden = torch.cat([hidden_states(net, _corpus.stretched(e.features, tract)) for e in data])
        return net.curves(hidden).clamp(0, 1)

    wanted = torch.cat([e.curves for e in data])
    by_tract = {tract: heard(tract) for tract in _TRACTS}
    agreed = {tract: correlation(opening(p), opening(wanted)) for tract, p in by_tract.items()}
    own = by_tract[1.0]
    each = [correlation(own[:, i], wanted[:, i]) for i in range(len(NAMES))]
    others = [r for tract, r in agreed.items() if tract != 1.0]
    return {
        "opening_correlation": round(agreed[1.0], 4),
        "opening_in_other_tracts": round(sum(others) / len(others), 4),
        "opening_spread": round(float(opening(own).std() / opening(wanted).std()), 4),
        "mean_curve_correlation": round(sum(each) / len(each), 4),
        "mean_absolute_error": round(float((own - wanted).abs().mean()), 5),
    }


def _group(text: str) -> tuple[int, tuple[str, ...]]:
    """``COUNT`` or ``COUNT:VOICE,VOICE,TEXT.txt``."""
    count, _, names = text.partition(":")
    return int(count), tuple(n for n in names.split(",") if n)


def _sources(names: Sequence[str], unheard: Sequence[str]) -> Sources:
    """Who speaks in a group, but for those who are only scored."""
    texts = tuple(chain.from_iterable(_corpus.sentences(Path(n)) for n in names if n.endswith(".txt")))
    natural = tuple(n for n in names if not n.endswith(".txt"))
    kept_out = tuple(v.rpartition("@")[2] for v in unheard)
    return Sources(_corpus.training_variants(), natural, sentences=texts, unheard=kept_out)


def main() -> None:
    """Train, score and write the weights with their recipe."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=WEIGHTS)
    parser.add_argument("--steps", type=int, default=Recipe.steps)
    parser.add_argument("--rate", type=float, default=Recipe.rate)
    parser.add_argument("--start", type=Path, help="weights to go on from; their recipe lies beside them")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument(
        "--voices",
        type=_group,
        nargs="+",
        default=Recipe.groups,
        help="COUNT:VOICE,VOICE,TEXT.txt: so many utterances, two thirds by these natural voices and the rest by "
        "espeak-ng's: hibari, flite:NAME, a Piper voice's file, or Kokoro's model and @; one named twice speaks twice "
        "as much; a .txt is English that they read",
    )
    parser.add_argument("--unheard", action="append", default=[], help="a natural voice that is only scored")
    args = parser.parse_args()
    from safetensors.torch import load_file, save_file

    recipe = Recipe(steps=args.steps, rate=args.rate, groups=tuple(args.voices))
    # Steps are small: one thread is nearly as fast as two, and makes the result independent of the machine's load.
    torch.set_num_threads(1)
    begun, first = time.perf_counter(), recipe.seed * 100_000
    data: list[Example] = []
    read: tuple[str, ...] = ()
    for i, (count, names) in enumerate(recipe.groups):
        sources = _sources(names, args.unheard)
        read += sources.sentences
        data += corpus(first + _GROUP_SEEDS * i, count, sources, args.workers, recipe.copies)
    unheard = {"espeak-ng": Sources(tuple(sorted(_corpus.HELD_OUT)))}
    unheard |= {Path(v).name: Sources((), (v,), natural_share=1.0, sentences=read) for v in args.unheard}
    held_out = {
        name: corpus(first + _HELD_OUT_SEEDS, recipe.validation, sources, args.workers)
        for name, sources in unheard.items()
    }
    minutes = sum(len(e.curves) for e in data) / STEPS_HZ / 60
    print(f"{minutes:.1f} minutes of speech in {time.perf_counter() - begun:.0f} s", flush=True)
    start = unpack(load_file(args.start)) if args.start else None
    net = fit(data, recipe, lambda step, value: print(f"step {step}: loss {value:.4f}", flush=True), start)
    result = {
        "recipe": asdict(recipe) | {"groups": [[n, [Path(v).name for v in voices]] for n, voices in recipe.groups]},
        "started_from": json.loads(args.start.with_suffix(".json").read_text()) if args.start else None,
        "minutes_of_speech": round(minutes, 1),
        "training_s": round(time.perf_counter() - begun),
        "parameters": sum(p.numel() for p in net.parameters()),
        "held_out_voices": sorted(_corpus.HELD_OUT),
        "scores": {name: scores(net, examples) for name, examples in held_out.items()},
    }
    part = args.out.with_suffix(".part")
    save_file(pack(net), part)
    part.replace(args.out)
    args.out.with_suffix(".json").write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
