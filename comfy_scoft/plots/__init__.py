"""Charts, tables and contact sheets as images: each function returns a float32 tensor (H, W, 3) in [0, 1]."""

from .charts import loss_chart
from .filtered import filter_page
from .sheets import compare_grid, contact_sheet
from .tables import count_table, score_table

__all__ = ["compare_grid", "contact_sheet", "count_table", "filter_page", "loss_chart", "score_table"]
