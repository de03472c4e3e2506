"""The methods, one file each. Every module of this package is found through the entry-point group ``ssvid.tasks``."""
