"""Named protocols: settings that never change, as data."""
