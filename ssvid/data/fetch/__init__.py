"""Data sets from their servers: sources, downloads that resume, unpacking."""
