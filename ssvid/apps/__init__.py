"""What a trained head is good for by itself: a curve of a whole video, an adaptive speed-up, a map of where."""
