"""Judge a canary by what it has done so far: evidence from counts, with a stated rate of false alarms."""
