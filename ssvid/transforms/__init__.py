"""From frames to tensors: one draw per clip, whole clips at a time."""
