"""``clusterer top`` and ``clusterer watch``: what happens now, on a screen of its own."""
