"""What a backbone is worth: one file or folder for each question. No task is seen in here."""
