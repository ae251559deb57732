"""What the paper says of its dataset."""

TABLE_3 = {
    "Korea": (34, 22, 20, 20, 21, 20, 8, 6, 11),
    "China": (33, 31, 24, 23, 27, 23, 5, 15, 8),
    "Nigeria": (21, 16, 18, 17, 13, 21, 11, 8, 15),
    "Mexico": (22, 19, 14, 18, 15, 10, 7, 10, 19),
    "India": (19, 26, 24, 21, 16, 18, 9, 7, 8),
    "United States": (23, 22, 10, 17, 29, 15, 16, 12, 7),
}
"""SCoFT, arXiv 2401.08053, Table 3: hand-selected images of CCUB by culture and category."""
