"""``clusterer demo``: two instances that replicate, one of which is killed and comes back."""
