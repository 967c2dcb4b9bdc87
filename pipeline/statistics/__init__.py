"""How far a figure can be trusted: intervals by resampling, and paired comparisons."""
