"""The mini-world benchmark: what each loss does to bias, leakage, memorization and diversity, with a known answer."""
