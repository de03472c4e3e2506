"""Run it: one file per verb; evaluate is what the evaluations share."""
