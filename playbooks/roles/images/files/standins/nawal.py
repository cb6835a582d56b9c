#!/usr/bin/env python3
"""A stand-in for Nawal: federated learning of a small linear model, with the six layers that guard it.

A job is {"participants": 3 to 100, "rounds": 1 to 500, "byzantine": how many of them lie}. Its result has the error
before and after, and what was rejected. GET /layers. Environment beside that of jobs.py: MIN_PARTICIPANTS,
MAX_PARTICIPANTS, LAYERS (all six unless it says less), PARTICIPANT_KEY_FILE.
"""

import hashlib
import hmac
import math
import os
import random
from pathlib import Path

import jobs

LAYERS = (
    "authentication",
    "validation",
    "clipping",
    "byzantine_detection",
    "secure_aggregation",
    "differential_privacy",
)
TRUTH = (1.5, -2.0, 0.5, 3.0)
CLIP, NOISE, RATE, SAMPLES = 20.0, 0.01, 0.1, 8
Vector = list[float]


class Nawal:
    """Trains as it is configured."""

    def __init__(self, key: bytes, low: int = 3, high: int = 100, layers: tuple[str, ...] = LAYERS) -> None:
        if unknown := set(layers) - set(LAYERS):
            raise SystemExit(f"LAYERS: no layer {', '.join(sorted(unknown))} (there are {', '.join(LAYERS)})")
        self.key, self.low, self.high, self.layers = key, low, high, layers

    def check(self, given: dict) -> dict:
        participants = jobs.number(given.get("participants"), "participants", self.low, self.high)
        rounds = jobs.number(given.get("rounds", 10), "rounds", 1, 500)
        return {
            "participants": participants,
            "rounds": rounds,
            "byzantine": jobs.number(given.get("byzantine", 0), "byzantine", 0, participants),
        }

    def run(self, job: dict) -> tuple[dict, dict[str, int]]:
        chance = random.Random(repr(sorted(job.items())))  # noqa: S311  # the same job, the same result
        data = [self._data(chance) for _ in range(job["participants"])]
        model, rejected = [0.0] * len(TRUTH), 0
        for number in range(job["rounds"]):
            updates = [self._update(model, rows, who < job["byzantine"]) for who, rows in enumerate(data)]
            kept, refused = self._filtered(updates, number)
            rejected += refused
            if kept:
                step = self._aggregate(kept, chance)
                model = [m + s for m, s in zip(model, step, strict=True)]
        counted = {"byzantine_updates_rejected_total": rejected, "rounds_total": job["rounds"]}
        error = math.dist(model, TRUTH)
        result = {"error_before": math.dist([0.0] * 4, TRUTH), "error": error, "model": model, "rejected": rejected}
        return {**result, "layers": list(self.layers)}, counted

    def page(self) -> dict:
        return {"layers": {name: name in self.layers for name in LAYERS}, "on": len(self.layers)}

    def _data(self, chance: random.Random) -> list[tuple[Vector, float]]:
        """What one participant knows and never sends: rows of features and their outcome."""
        rows = [[chance.gauss(0, 1) for _ in TRUTH] for _ in range(SAMPLES)]
        return [(row, sum(w * x for w, x in zip(TRUTH, row, strict=True))) for row in rows]

    def _update(self, model: Vector, rows: list[tuple[Vector, float]], lies: bool) -> Vector:
        step = [0.0] * len(model)
        for features, wanted in rows:
            wrong = wanted - sum(m * x for m, x in zip(model, features, strict=True))
            step = [s + RATE * wrong * x / SAMPLES for s, x in zip(step, features, strict=True)]
        return [-50 * s - 5 for s in step] if lies else step

    def _filtered(self, updates: list[Vector], number: int) -> tuple[list[Vector], int]:
        """What may be summed, and how many the Byzantine layer took out."""
        kept = []
        for who, update in enumerate(updates):
            message = f"{who}:{number}:{update}".encode()
            signature = hmac.digest(self.key, message, hashlib.sha256)
            if "authentication" in self.layers and not hmac.compare_digest(
                signature, hmac.digest(self.key, message, hashlib.sha256)
            ):
                continue
            if "validation" in self.layers and not all(map(math.isfinite, update)):
                continue
            kept.append(update)
        if "clipping" in self.layers:
            kept = [[x * min(1.0, CLIP / max(math.hypot(*u), 1e-9)) for x in u] for u in kept]
        if "byzantine_detection" not in self.layers:
            return kept, 0
        middle = [sorted(column)[len(column) // 2] for column in zip(*kept, strict=True)]
        far = sorted(math.dist(u, middle) for u in kept)[len(kept) // 2]
        near = [u for u in kept if math.dist(u, middle) <= max(4 * far, 1.0)]
        return near, len(kept) - len(near)

    def _aggregate(self, updates: list[Vector], chance: random.Random) -> Vector:
        if "secure_aggregation" in self.layers:  # masks of neighbours cancel in the sum, and hide each update
            masks = [[chance.gauss(0, 1) for _ in TRUTH] for _ in updates]
            updates = [
                [x + m - n for x, m, n in zip(u, masks[i], masks[i - 1], strict=True)] for i, u in enumerate(updates)
            ]
        mean = [sum(column) / len(updates) for column in zip(*updates, strict=True)]
        if "differential_privacy" in self.layers:
            mean = [m + chance.gauss(0, NOISE / len(updates)) for m in mean]
        return mean


def main() -> None:
    file = os.environ.get("PARTICIPANT_KEY_FILE", "")
    nawal = Nawal(
        Path(file).read_bytes() if file else b"stand-in",
        int(os.environ.get("MIN_PARTICIPANTS", "3")),
        int(os.environ.get("MAX_PARTICIPANTS", "100")),
        tuple(os.environ.get("LAYERS", " ".join(LAYERS)).split()),
    )
    gauges = {"participants_min": nawal.low, "participants_max": nawal.high, "layers_on": len(nawal.layers)}
    counters = ("byzantine_updates_rejected_total", "rounds_total")
    store = jobs.store_of("nawal")
    jobs.serve(jobs.Service("nawal", store, nawal.check, nawal.run, counters, gauges, {"/layers": nawal.page}))


if __name__ == "__main__":
    main()
