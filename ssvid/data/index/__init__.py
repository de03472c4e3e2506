"""Folder to table: every file is scanned once, by processes that may be killed."""
