"""What a reader promises, one file per decoder, and the choice among them."""
