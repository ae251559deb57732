"""The mini-world benchmark: what each loss does to bias, leakage, memorisation and diversity, with a known answer."""
