"""What a commit is made of, how it is worked out, and the order in which it is written."""
