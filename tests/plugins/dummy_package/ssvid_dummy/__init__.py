"""A stranger's plug-ins for ssvid."""
