"""What every measure is called, how it is read, where it comes from: for reports, leaderboards and ranking.

The formulas themselves are in `measures`; this is their explanation for people.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from engram.metrics.matrix import AccuracyMatrix


@dataclass(frozen=True)
class Measure:
    """One scalar of `measure`, explained."""

    key: str
    title: str
    formula: str
    """Plain text with Unicode letters, as in the design."""
    meaning: str
    better: Literal["higher", "lower"]
    source: str
    signed: bool = False
    """Negative values are possible and mean something."""


MEASURES: tuple[Measure, ...] = (
    Measure(
        "final_accuracy",
        "Final accuracy",
        "acc_T = Σ_c n_c · a[T][c] / Σ_c n_c",
        "Share of all test images of all classes that the model gets right after the last task.",
        "higher",
        "the project's proposal (micro average)",
    ),
    Measure(
        "average_incremental_accuracy",
        "Average incremental accuracy",
        "(1/T) · Σ_t acc_t",
        "Mean of the accuracy over seen classes after each task: how good the model was along the way.",
        "higher",
        "iCaRL, CVPR 2017",
    ),
    Measure(
        "forget_rate",
        "Forget rate",
        "f_T = (1/C_old) · Σ_{c old} (max_{s<T} a[s][c] - a[T][c])",
        "How much accuracy an old class has lost since its best, on average over the old classes.",
        "lower",
        "the project's proposal; IEEE 10574196",
        signed=True,
    ),
    Measure(
        "forgetting",
        "Forgetting",
        "F_T = (1/(T-1)) · Σ_{j<T} (max_{j≤s<T} R[s][j] - R[T][j])",
        "The same loss counted by task instead of by class.",
        "lower",
        "Chaudhry et al., ECCV 2018",
        signed=True,
    ),
    Measure(
        "backward_transfer",
        "Backward transfer",
        "BWT = (1/(T-1)) · Σ_{j<T} (R[T][j] - R[j][j])",
        "What learning later tasks did to earlier ones: below zero it harmed them.",
        "higher",
        "GEM, NeurIPS 2017",
        signed=True,
    ),
    Measure(
        "forward_transfer",
        "Forward transfer",
        "FWT = (1/(T-1)) · Σ_{j>1} (R[j-1][j] - b[j])",
        "What earlier tasks did for tasks not yet seen; near zero by construction where classes are new.",
        "higher",
        "GEM, NeurIPS 2017",
        signed=True,
    ),
    Measure(
        "forget_rate_ianvs",
        "Forget rate as Ianvs counts it",
        "(1/T) · Σ_t g_t, g_1 = 0, g_t = (1/C_seen) · Σ_{c old} max(0, max_{s<t} a[s][c] - a[t][c])",
        "For comparison with published Ianvs tables only: clipped, diluted by new classes and by task 1.",
        "lower",
        "KubeEdge Ianvs",
    ),
)

BY_KEY = {measure.key: measure for measure in MEASURES}


def why_undefined(key: str, matrix: AccuracyMatrix) -> str:
    """Return the reason, as a sentence, for which a measure of this matrix is None."""
    if matrix.tasks == 0:
        return "No task was finished."
    if not any(any(row.values()) for row in matrix.counts):
        return "There were no test samples."
    if key in ("accuracy", "final_accuracy", "average_incremental_accuracy"):
        return "The classes have no test samples."
    if matrix.tasks == 1:
        return "There is one task only, so there is nothing old to compare with."
    if key == "forward_transfer":
        return "Classes not yet seen were not evaluated; set spec.evaluation.unseen to true to measure it."
    if key == "intransigence":
        return "It needs a joint reference run on the same split."
    return "None of the old classes has test samples."


def explain(measures: dict[str, Any], matrix: AccuracyMatrix) -> list[dict[str, Any]]:
    """Return one entry a scalar: key, title, value, formula, meaning, better, source; `reason` where None."""
    entries: list[dict[str, Any]] = []
    for item in MEASURES:
        value = measures[item.key]
        entries.append(
            {
                "key": item.key,
                "title": item.title,
                "value": value,
                "formula": item.formula,
                "meaning": item.meaning,
                "better": item.better,
                "source": item.source,
                "reason": why_undefined(item.key, matrix) if value is None else None,
            }
        )
    return entries
