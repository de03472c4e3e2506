"""What to run, as a short YAML: schema (dataclasses), load (find, merge, check), building (the networks and the task)."""
