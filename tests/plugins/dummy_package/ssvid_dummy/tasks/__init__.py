"""The shelf: every file here is a plug-in."""
