"""From a folder of videos to batches: the manifest (the one table), tickets, the clip loader."""
