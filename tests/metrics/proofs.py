"""V1 to V14 of facts/metrics.md 8.1, each a function that yields rows of the table in metrics/README.md.

A bar is what issue 5 asks for. A row that misses it stays in the table as a failure. Negative controls are measures
that must miss the bar; one that meets it would mean that the test tests nothing. V13 needs no picture and stands apart.
"""

from __future__ import annotations

from composition_proofs import v5_composition_rank, v5_negative_controls, v6_composition_monotone, v7_independence
from constraint_proofs import v8_leakage, v9_memorisation, v10_failures, v11_adherence, v12_diversity
from statistics_proofs import v14_determinism
from style_proofs import v1_style_rank, v2_style_monotone, v3_no_change, v4_gap

ALL = (
    v1_style_rank,
    v2_style_monotone,
    v3_no_change,
    v4_gap,
    v5_composition_rank,
    v5_negative_controls,
    v6_composition_monotone,
    v7_independence,
    v8_leakage,
    v9_memorisation,
    v10_failures,
    v11_adherence,
    v12_diversity,
    v14_determinism,
)
