"""Images and clips in crops: their records, and how a method chooses among them."""
