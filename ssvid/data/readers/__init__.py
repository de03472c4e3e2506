"""Where the videos of a data set are listed: one file per data set."""
