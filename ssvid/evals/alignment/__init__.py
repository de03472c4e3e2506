"""Whether the frames of videos of one action can be brought together by their features: an evaluation of its own."""
