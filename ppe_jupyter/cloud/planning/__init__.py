"""From what is wished and what there is to a plan."""
