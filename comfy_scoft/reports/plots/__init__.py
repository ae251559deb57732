"""Charts, tables and contact sheets as images: each function returns a float32 tensor (H, W, 3) in [0, 1]."""

from .charts import loss_chart
from .copies import copies_page
from .filtered import filter_page
from .sheets import compare_grid, contact_sheet
from .tables import by_model, count_table, score_table

__all__ = [
    "by_model",
    "compare_grid",
    "contact_sheet",
    "copies_page",
    "count_table",
    "filter_page",
    "loss_chart",
    "score_table",
]
