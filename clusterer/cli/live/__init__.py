"""``clusterer top`` and ``clusterer watch``: the present state of nodes on a full screen."""
