"""Numbers to words: rows, summaries, tables, pages."""
