"""User surveys: people of the culture rank images of several generators (the paper's Section 5 and Table 5)."""
