"""Correspondence: what is known in one frame of a video is carried through all others by the features of a frozen network."""
