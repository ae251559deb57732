"""Surveys: people of the culture rank what generators draw (the paper's Section 5, "User Survey", and Table 5)."""

from __future__ import annotations
