#!/usr/bin/env python3
"""A stand-in for Kinich: small quantum circuits, optimised, run on the first backend that is up, errors mitigated.

A job is {"qubits": 1 to 10, "gates": [["h", 0], ["cx", 0, 1], ["rz", 0, 0.5], ...], "outage": ["azure"]}; `outage`
names backends that are to be taken as down for this job. Its result says which backend ran it, how many gates the
optimiser left, and the parity as measured and as mitigated. GET /backends: the order, and how often each was used.
Environment beside that of jobs.py: BACKENDS ("azure ibm"), OPTIMIZATION (0 to 3), MITIGATION ("zne readout"),
CREDENTIALS_DIR with one file for each backend.
"""

import cmath
import math
import os
import time
from pathlib import Path

import jobs

TURNS = ("rx", "ry", "rz")
KNOWN = {"h": 1, "x": 1, "z": 1, "cx": 2, **dict.fromkeys(TURNS, 1)}
NOISE = {"azure": 0.01, "ibm": 0.02}  # of a gate; what a backend loses of the signal
READOUT = 0.03  # probability that a measured bit is read wrong
LATENCY = 0.1  # seconds until a backend answers
Gate = list


class Kinich:
    """Runs circuits as it is configured."""

    def __init__(
        self,
        backends: tuple[str, ...],
        level: int = 3,
        mitigation: tuple[str, ...] = ("zne", "readout"),
        credentials: str = "",
    ) -> None:
        self.backends, self.level, self.mitigation, self.credentials = backends, level, mitigation, credentials
        self.used: object = None  # a look at the counters, set by main

    def check(self, given: dict) -> dict:
        qubits = jobs.number(given.get("qubits"), "qubits", 1, 10)
        gates, outage = given.get("gates", []), given.get("outage", [])
        if not isinstance(gates, list) or len(gates) > 200:
            raise jobs.RefusedError("gates must be a list of at most 200")
        for gate in gates:
            if not isinstance(gate, list) or not gate or gate[0] not in KNOWN:
                raise jobs.RefusedError(f"{gate!r} is no gate ({', '.join(KNOWN)})")
            on = gate[1 : 1 + KNOWN[gate[0]]]
            if len(gate) != 1 + KNOWN[gate[0]] + (gate[0] in TURNS) or len({*on}) != len(on):
                raise jobs.RefusedError(f"{gate!r} has the wrong number of operands")
            for qubit in on:
                jobs.number(qubit, f"a qubit of {gate!r}", 0, qubits - 1)
            if gate[0] in TURNS and not isinstance(gate[-1], int | float):
                raise jobs.RefusedError(f"{gate!r} wants an angle")
        if unknown := [b for b in outage if b not in self.backends]:
            raise jobs.RefusedError(f"outage names {unknown[0]!r}; backends are {', '.join(self.backends)}")
        return {"qubits": qubits, "gates": gates, "outage": outage}

    def run(self, job: dict) -> tuple[dict, dict[str, int]]:
        backend = next((b for b in self.backends if self._up(b, job["outage"])), None)
        if backend is None:
            raise RuntimeError(f"no backend is up of {', '.join(self.backends)}")
        time.sleep(LATENCY)
        gates = optimised(job["gates"], self.level)
        exact = parity(job["qubits"], gates)
        loss = (1 - NOISE.get(backend, 0.02)) ** len(gates)
        seen = exact * loss * (1 - 2 * READOUT) ** job["qubits"]
        better = seen / (1 - 2 * READOUT) ** job["qubits"] if "readout" in self.mitigation else seen
        if "zne" in self.mitigation:  # zero-noise extrapolation: measured at once, twice and three times the noise
            one, two, three = better, better * loss, better * loss**2
            better = 3 * one - 3 * two + three
        fallback = backend != self.backends[0]
        counted = {f"backend_jobs_total/{backend}": 1, "fallbacks_total": int(fallback)}
        result = {"backend": backend, "fallback": fallback, "level": self.level, "mitigation": list(self.mitigation)}
        result |= {"gates_given": len(job["gates"]), "gates_run": len(gates), "exact": exact, "measured": seen}
        return {**result, "mitigated": better}, counted

    def _up(self, backend: str, outage: list[str]) -> bool:
        """Reachable, and with a key to log in with."""
        return backend not in outage and (not self.credentials or Path(self.credentials, backend).exists())

    def page(self) -> dict:
        counts = self.used() if callable(self.used) else {}
        backends = [
            {
                "name": b,
                "role": "fallback" if i else "primary",
                "up": self._up(b, []),
                "jobs": counts.get(f"backend_jobs_total/{b}", 0),
            }
            for i, b in enumerate(self.backends)
        ]
        return {"backends": backends, "level": self.level, "mitigation": list(self.mitigation)}


def optimised(gates: list[Gate], level: int) -> list[Gate]:
    """Level 1 drops turns by nothing, 2 also pairs that undo each other, 3 also makes one of turns in a row."""
    kept: list[Gate] = []
    for gate in gates:
        if level >= 1 and gate[0] in TURNS and not math.remainder(gate[-1], 4 * math.pi):
            continue
        last = kept[-1] if kept else None
        if level >= 2 and gate == last and gate[0] not in TURNS:
            kept.pop()
        elif level >= 3 and last and gate[0] in TURNS and gate[:-1] == last[:-1]:
            kept[-1] = [*last[:-1], last[-1] + gate[-1]]
            if not math.remainder(kept[-1][-1], 4 * math.pi):
                kept.pop()
        else:
            kept.append(gate)
    return kept


def parity(qubits: int, gates: list[Gate]) -> float:
    """The expectation of Z on all qubits together after these gates, by the state's vector."""
    state = [0j] * 2**qubits
    state[0] = 1 + 0j
    for name, *operands in gates:
        bit = 1 << operands[0]
        if name == "cx":
            other = 1 << operands[1]
            state = [state[i ^ other] if i & bit else state[i] for i in range(len(state))]
            continue
        (a, b), (c, d) = matrix(name, *operands[1:])
        state = [
            c * state[i ^ bit] + d * state[i] if i & bit else a * state[i] + b * state[i ^ bit]
            for i in range(len(state))
        ]
    return sum((-1) ** i.bit_count() * abs(amplitude) ** 2 for i, amplitude in enumerate(state))


def matrix(name: str, angle: float = 0.0) -> tuple[tuple[complex, complex], tuple[complex, complex]]:
    half, root = angle / 2, 1 / math.sqrt(2)
    return {
        "h": ((root, root), (root, -root)),
        "x": ((0, 1), (1, 0)),
        "z": ((1, 0), (0, -1)),
        "rx": ((math.cos(half), -1j * math.sin(half)), (-1j * math.sin(half), math.cos(half))),
        "ry": ((math.cos(half), -math.sin(half)), (math.sin(half), math.cos(half))),
        "rz": ((cmath.exp(-1j * half), 0), (0, cmath.exp(1j * half))),
    }[name]


def main() -> None:
    kinich = Kinich(
        tuple(os.environ.get("BACKENDS", "azure ibm").split()),
        int(os.environ.get("OPTIMIZATION", "3")),
        tuple(os.environ.get("MITIGATION", "zne readout").split()),
        os.environ.get("CREDENTIALS_DIR", ""),
    )
    store = jobs.store_of("kinich")
    kinich.used = store.counts
    counters = ("fallbacks_total", *(f"backend_jobs_total/{b}" for b in kinich.backends))
    gauges = {"jobs_max": int(os.environ.get("MAX_JOBS", "50")), "optimization_level": kinich.level}
    jobs.serve(jobs.Service("kinich", store, kinich.check, kinich.run, counters, gauges, {"/backends": kinich.page}))


if __name__ == "__main__":
    main()
