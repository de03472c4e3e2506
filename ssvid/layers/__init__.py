"""A VIDEO → LAYERS: one short video taken apart into an object with its effects, and what lies behind it; edited, put together again.

Pure cores on arrays and tensors; files, folders and the command line are in ``ssvid.programs``.
"""
